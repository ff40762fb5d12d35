"""Decoding of photos in one thread pool for the whole process, with bounded memory.

A file of a few kilobytes can hold a hundred million pixels. Large photos therefore wait for each
other, however many requests arrive at once.
"""

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from joblib import cpu_count
from PIL import Image

from phototag.base.errors import InputError
from phototag.decoding.formats import FORMATS
from phototag.decoding.photos import MAX_PIXELS, count_pixels, prepare_photo


class PixelBudget:
    """Number of pixels that all threads together may decode at the same time.

    Decoding takes at most 16 bytes per pixel (measured for 16 bits with transparency).

    Args:
        pixels: Number of pixels in total.
    """

    def __init__(self, pixels: int) -> None:
        self.free = self.pixels = pixels
        self.change = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until the pixels are free; a photo above the whole budget is decoded alone."""
        taken = min(pixels, self.pixels)
        with self.change:
            self.change.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self.change:
                self.free += taken
                self.change.notify_all()


BUDGET = PixelBudget(32_000_000)
# The calling thread decodes a single photo of at most this many pixels, which saves the wait for
# another thread. Larger photos go to the pool, because every thread keeps the memory it freed.
SMALL = 300_000
POOL = ThreadPoolExecutor(cpu_count(), thread_name_prefix="decode")  # Pillow releases the GIL
Decoded = tuple[np.ndarray | None, str | None]


def decode_photos(
    photos: Sequence[bytes | InputError], size: int, max_pixels: int = MAX_PIXELS
) -> list[Decoded]:
    """Decode photos to squares; a photo that fails does not affect the others.

    Args:
        photos: Contents of each file, or the error with which it was read.
        size: Side of the squares in pixels.
        max_pixels: Largest number of pixels of a photo that is decoded.

    Returns:
        For each photo its pixels, uint8 [size, size, 3], and None; or None and the reason.
    """

    def decode(photo: bytes | InputError) -> Decoded:
        return _decode(photo, size, max_pixels)

    if len(photos) == 1 and _count_pixels(photos[0], size) <= SMALL:
        return [decode(photos[0])]
    return list(POOL.map(decode, photos))


def _decode(photo: bytes | InputError, size: int, max_pixels: int) -> Decoded:
    if isinstance(photo, InputError):
        return None, str(photo)
    try:
        pixels = _count_pixels(photo, size)
        if pixels > max_pixels:
            return None, "over the pixel limit"
        with BUDGET.hold(pixels):
            prepared = prepare_photo(photo, size, max_pixels=max_pixels)
    except Exception as error:  # decoders raise any kind of error on damaged files
        return None, f"unreadable: {type(error).__name__}"
    return prepared.pixels, None if prepared.pixels is not None else prepared.reason


def _count_pixels(photo: bytes | InputError, size: int) -> int:
    """Return the number of pixels that decoding holds at once, read from the file's header."""
    if isinstance(photo, InputError):
        return 0
    try:
        image = Image.open(io.BytesIO(photo), formats=FORMATS)
    except Exception:  # `prepare_photo` reports the reason
        return 0
    # A JPEG can be decoded at an eighth of its size, unless it is progressive.
    if not image.info.get("progressive"):
        image.draft(None, (size, size))
    return count_pixels(image)
