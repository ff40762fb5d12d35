from pathlib import Path

import numpy as np

from phototag.dataset.stats import CHUNK, channel_stats


def test_mean_and_deviation_equal_numpy_on_the_chosen_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * CHUNK + 20, 5, 5, 3), dtype=np.uint8)
    images[..., 1] //= 16
    images[::2] //= 2
    images[..., 2] = 77
    rows = rng.permutation(len(images))[: CHUNK + 11]
    np.save(tmp_path / "images.npy", images)
    mean, std = channel_stats(tmp_path / "images.npy", rows)
    chosen = images[rows].astype(np.float64) / 255
    np.testing.assert_allclose(mean, chosen.mean(axis=(0, 1, 2)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(std, chosen.std(axis=(0, 1, 2)), rtol=0, atol=1e-12)
    assert std[2] < 1e-12
