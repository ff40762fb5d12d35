"""Decoding of photos in threads that the whole process shares, with a limited use of memory.

A file of a few kilobytes can contain millions of pixels. Decoding needs up to 16 bytes of memory
per pixel (measured for 16-bit images with transparency). To limit the use of memory, large photos
are decoded one at a time, regardless of the number of simultaneous requests.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from joblib import cpu_count
from PIL import Image

from phototag.base.errors import InputError
from phototag.decoding.formats import FORMATS
from phototag.decoding.photos import MAX_PIXELS, Photo, count_pixels, prepare_photo

LARGE = 2_000_000  # photos with more pixels than this are decoded one at a time
# Each thread retains freed memory. Therefore, only the threads of these two pools decode photos.
SMALL_PHOTOS = ThreadPoolExecutor(cpu_count(), "decode")  # Pillow releases the GIL
LARGE_PHOTOS = ThreadPoolExecutor(1, "decode-large")


def decode_photos(
    photos: Sequence[bytes | InputError], size: int, max_pixels: int = MAX_PIXELS
) -> list[Photo]:
    """Decode and resize photos to squares with the side length `size`, as `tag_photos` needs them.

    A photo that cannot be decoded, or that has more than `max_pixels` pixels, is rejected.
    """
    started = []
    for photo in photos:
        pool = LARGE_PHOTOS if _is_large(photo, size) else SMALL_PHOTOS
        started.append(pool.submit(_decode, photo, size, max_pixels))
    return [decoding.result() for decoding in started]


def _decode(photo: bytes | InputError, size: int, max_pixels: int) -> Photo:
    if isinstance(photo, InputError):
        return Photo("rejected", str(photo))
    return prepare_photo(photo, size, max_pixels=max_pixels)


def _is_large(photo: bytes | InputError, size: int) -> bool:
    """Return whether a photo is large according to its header, or its header cannot be read."""
    if isinstance(photo, InputError):
        return False
    try:
        image = Image.open(io.BytesIO(photo), formats=FORMATS)
        # A JPEG file that is not progressive can be decoded at a reduced size, down to 1/8.
        if not image.info.get("progressive"):
            image.draft(None, (size, size))
        return count_pixels(image) > LARGE
    except Exception:  # `prepare_photo` reports the file, or decodes it without damaged metadata
        return True
