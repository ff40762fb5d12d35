"""Decoding of photos in threads that the whole process shares, with bounded memory.

A file of a few kilobytes can hold millions of pixels, and decoding needs at most 16 bytes per pixel
(measured for 16 bits with transparency). Large photos are therefore decoded one at a time, however
many requests arrive at once.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from joblib import cpu_count
from PIL import Image

from phototag.base.errors import InputError
from phototag.decoding.formats import FORMATS
from phototag.decoding.photos import MAX_PIXELS, Photo, count_pixels, prepare_photo

LARGE = 2_000_000  # pixels
# Requests do not decode in their own threads, because every thread keeps the memory that it freed.
SMALL_PHOTOS = ThreadPoolExecutor(cpu_count(), "decode")  # Pillow releases the GIL
LARGE_PHOTOS = ThreadPoolExecutor(1, "decode-large")


def decode_photos(
    photos: Sequence[bytes | InputError], size: int, max_pixels: int = MAX_PIXELS
) -> list[Photo]:
    """Decode photos to squares; a photo that fails is rejected and does not affect the others.

    Args:
        photos: Contents of each file, or the error with which it was read.
        size: Side of the squares in pixels.
        max_pixels: Largest number of pixels of a photo that is decoded.
    """
    started = []
    for photo in photos:
        pool = LARGE_PHOTOS if _count_pixels(photo, size) > LARGE else SMALL_PHOTOS
        started.append(pool.submit(_decode, photo, size, max_pixels))
    return [decoding.result() for decoding in started]


def _decode(photo: bytes | InputError, size: int, max_pixels: int) -> Photo:
    if isinstance(photo, InputError):
        return Photo("rejected", str(photo))
    try:
        return prepare_photo(photo, size, max_pixels=max_pixels)
    except Exception as error:  # decoders raise any kind of error on damaged files
        return Photo("rejected", f"unreadable: {type(error).__name__}")


def _count_pixels(photo: bytes | InputError, size: int) -> int:
    """Return the number of pixels that decoding holds at once, read from the file's header."""
    if isinstance(photo, InputError):
        return 0
    with suppress(Exception):  # `prepare_photo` reports the reason
        image = Image.open(io.BytesIO(photo), formats=FORMATS)
        # A JPEG can be decoded at an eighth of its size, unless it is progressive.
        if not image.info.get("progressive"):
            image.draft(None, (size, size))
        return count_pixels(image)
    return 0
