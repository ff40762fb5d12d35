"""Channel statistics of a split."""

from pathlib import Path

import numpy as np

CHUNK = 256  # photos read at a time: 12 MiB at 128 pixels a side


def channel_stats(path: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute each channel's mean and population standard deviation, on the scale 0..1.

    Both come from exact integer histograms, so neither the order of the rows nor their number
    costs precision. The file is read from front to back, `CHUNK` photos at a time.

    Args:
        path: A .npy file, uint8 [num_images, size, size, 3].
        rows: The photos to take, integers [num_rows], at least one, none twice.

    Returns:
        Mean and standard deviation, float64 [3] each.
    """
    # Only its shape and place are needed: pages of a memory map would count as ours.
    images = np.load(path, mmap_mode="r")
    taken = np.zeros(len(images), bool)
    taken[rows] = True
    histogram = np.zeros((3, 256), np.int64)
    with path.open("rb") as file:
        file.seek(images.offset)
        for start in range(0, len(images), CHUNK):
            count = min(CHUNK, len(images) - start)
            chunk = np.fromfile(file, np.uint8, count * images[0].size)
            chunk = chunk.reshape(count, *images.shape[1:])[taken[start : start + count]]
            for channel in range(3):
                histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = histogram.sum(axis=1)
    mean = histogram @ values / total
    deviation = values - mean[:, None]
    std = np.sqrt((histogram * deviation**2).sum(axis=1) / total)
    return mean, std
