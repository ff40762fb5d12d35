"""Channel statistics and label counts of a split."""

import numpy as np

CHUNK = 256  # photos read at a time: 12 MiB at 128 pixels a side


def channel_stats(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute each channel's mean and population standard deviation, on the scale 0..1.

    Both come from exact integer histograms, so neither the order of the rows nor their number
    costs precision, and only `CHUNK` photos are held at once.

    Args:
        images: uint8 [num_images, size, size, 3]; may be a memory map.
        rows: The photos to take, integers [num_rows], at least one.

    Returns:
        Mean and standard deviation, float64 [3] each.
    """
    histogram = np.zeros((3, 256), np.int64)
    for start in range(0, len(rows), CHUNK):
        chunk = images[rows[start : start + CHUNK]]
        for channel in range(3):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = histogram.sum(axis=1)
    mean = histogram @ values / total
    deviation = values - mean[:, None]
    std = np.sqrt((histogram * deviation**2).sum(axis=1) / total)
    return mean, std
