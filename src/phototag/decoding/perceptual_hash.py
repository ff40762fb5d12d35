"""Perceptual hash of a photo, used to find near duplicates."""

from functools import lru_cache

import numpy as np
from PIL import Image

FREQUENCIES = 8  # number of DCT frequencies per axis; 8 * 8 gives 64 bits, and bit 0 is always 0
MIN_CONTRAST = 8  # minimum difference between the lightest and darkest pixels, in 0..255


def perceptual_hash(image: Image.Image) -> str:
    """Return a hash that is nearly the same for all copies of a photo, even if recompressed.

    Each of the 63 lowest frequencies of the luminance (DCT-II) determines one bit, which is 1 if
    its coefficient exceeds the median coefficient (Zauner 2010, "Implementation and benchmarking of
    perceptual image hash functions").

    Args:
        image: Square image of any mode.

    Returns:
        16 hexadecimal digits, or "" if the photo has no contrast.
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
    """Return the DCT-II basis of the lowest frequencies, float32 [FREQUENCIES, size]."""
    frequency, position = np.arange(FREQUENCIES)[:, None], np.arange(size)[None]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * size)).astype(np.float32)
