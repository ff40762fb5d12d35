"""Perceptual hash of a photo, by which near duplicates are found."""

from functools import lru_cache

import numpy as np
from PIL import Image

FREQUENCIES = 8  # a side of the block of DCT coefficients: 64 bits, the constant one unused
MIN_CONTRAST = 8  # between the darkest and the lightest pixel (0..255); under it, no picture


def perceptual_hash(image: Image.Image) -> str:
    """Hash what a photo looks like: equal or nearly equal for copies, also recompressed ones.

    A bit for each of the 63 lowest frequencies of the luminance (DCT-II): whether its coefficient
    is over their median (Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions").

    Args:
        image: A square, of any mode.

    Returns:
        16 hexadecimal digits, or "" for a photo without contrast, which has nothing to compare.
    """
    levels = np.asarray(image.convert("L"))
    if int(levels.max()) - int(levels.min()) < MIN_CONTRAST:
        return ""
    luma = levels.astype(np.float32)
    basis = _dct_basis(len(luma))
    coefficients = (basis @ luma @ basis.T).ravel()[1:]
    bits = coefficients > np.sort(coefficients)[len(coefficients) // 2]
    return np.packbits(np.concatenate([[False], bits])).tobytes().hex()


@lru_cache(maxsize=1)
def _dct_basis(size: int) -> np.ndarray:
    frequency, place = np.arange(FREQUENCIES)[:, None], np.arange(size)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * size)).astype(np.float32)
