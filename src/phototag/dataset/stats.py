"""Compute the channel statistics of photos."""

from pathlib import Path

import numpy as np

CHUNK = 256  # number of photos read at a time; 12 MiB if they have 128 x 128 pixels


def channel_stats(path: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and population standard deviation of each channel, scaled to 0..1.

    Both are computed from exact integer histograms, so their precision does not depend on the
    order or number of the photos.

    Args:
        path: A .npy file with packed photos, uint8 [num_images, size, size, 3].
        rows: Distinct rows of the photos to measure, integers [num_rows], at least one row.

    Returns:
        Mean and standard deviation of the three channels, float64 [3] each.
    """
    images = np.load(path, mmap_mode="r")
    rows = np.sort(rows)  # sorted so that the file is read from front to back
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
