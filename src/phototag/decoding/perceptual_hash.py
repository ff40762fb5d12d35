"""Perceptual hash of a photo, used to find near duplicates."""

import numpy as np
from PIL import Image
from scipy.fft import dctn

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
    if np.ptp(levels) < MIN_CONTRAST:
        return ""
    coefficients = dctn(levels.astype(np.float32))[:FREQUENCIES, :FREQUENCIES].ravel()
    bits = coefficients > np.median(coefficients[1:])
    bits[0] = False  # the mean luminance
    return np.packbits(bits).tobytes().hex()
