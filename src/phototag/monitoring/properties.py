"""Properties of photos that do not depend on a model."""

import numpy as np

PROPERTIES = ("brightness", "contrast", "saturation", "sharpness")


def measure_properties(images: np.ndarray) -> np.ndarray:
    """Measure the properties of photos, all in 0..1.

    Args:
        images: Photos of one size, uint8 [num_photos, height, width, 3].

    Returns:
        float32 [num_photos, 4], in the order of `PROPERTIES`: mean and standard deviation of the
        luminance; mean difference between the largest and the smallest colour channel; and mean
        absolute difference between the luminances of neighbouring pixels.
    """
    luminance = images.astype(np.float32) @ (np.array([0.299, 0.587, 0.114], np.float32) / 255)
    steps = [np.abs(np.diff(luminance, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    red, green, blue = np.moveaxis(images, 3, 0)  # faster than `images.max(axis=3)`
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    return np.stack(
        [
            luminance.mean(axis=(1, 2)),
            luminance.std(axis=(1, 2)),
            (largest - smallest).mean(axis=(1, 2), dtype=np.float32) / 255,
            (steps[0] + steps[1]) / 2,
        ],
        axis=1,
    )
