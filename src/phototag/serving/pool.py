"""Photos' files to pixels, in one pool for the whole process, so that memory stays bounded.

A file of a few kilobytes may hold a hundred million pixels. However many ask at once, large photos
wait for one another.
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
    """Pixels that may be held at once, by all threads together.

    Decoding takes up to 16 bytes a pixel for a moment (measured: 16 bits with transparency).
    """

    def __init__(self, pixels: int) -> None:
        self.free = self.pixels = pixels
        self.change = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until so many are free; one photo of more than all of them goes alone."""
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
# A single photo of so few pixels is decoded by the thread that asks, which need not wait for
# another to wake up. Larger ones go to the pool: each thread that ever decoded keeps what it freed.
SMALL = 300_000
# Pillow decodes outside Python's lock, so threads do, and need no copies.
POOL = ThreadPoolExecutor(cpu_count(), thread_name_prefix="decode")
Decoded = tuple[np.ndarray | None, str | None]


def decode_photos(
    photos: Sequence[bytes | InputError], size: int, max_pixels: int = MAX_PIXELS
) -> list[Decoded]:
    """Decode photos to squares; whatever a file holds, it spoils no other.

    Args:
        photos: Each a file's bytes, or why there are none.
        size: Of the squares, in pixels a side.
        max_pixels: A photo of more is refused before it is decoded.

    Returns:
        For each its pixels, uint8 [size, size, 3], or why there are none.
    """

    def decode(photo: bytes | InputError) -> Decoded:
        return _decode(photo, size, max_pixels)

    if len(photos) == 1 and _count_held(photos[0], size) <= SMALL:
        return [decode(photos[0])]
    return list(POOL.map(decode, photos))


def _decode(photo: bytes | InputError, size: int, max_pixels: int) -> Decoded:
    if isinstance(photo, InputError):
        return None, str(photo)
    try:
        held = _count_held(photo, size)
        if held > max_pixels:
            return None, "over the pixel limit"
        with BUDGET.hold(held):
            prepared = prepare_photo(photo, size, max_pixels=max_pixels)
    except Exception as error:  # decoders of hostile files raise anything at all
        return None, f"unreadable: {type(error).__name__}"
    return prepared.pixels, None if prepared.pixels is not None else prepared.reason


def _count_held(photo: bytes | InputError, size: int) -> int:
    """Count the pixels that decoding will hold at once, from the file's header.

    Of a JPEG that is decoded at an eighth of its size they are a 64th.
    """
    if isinstance(photo, InputError):
        return 0
    try:
        image = Image.open(io.BytesIO(photo), formats=FORMATS)
    except Exception:  # it will be told when it is decoded
        return 0
    if not image.info.get("progressive"):  # whose coefficients are all held
        image.draft(None, (size, size))
    return count_pixels(image)
