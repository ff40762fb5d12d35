"""Conversion of 16-bit samples, of which many files use only 10, 12 or 14 bits, to 8 bits."""

import io
import sys

import numpy as np
from PIL import Image

FULL_RANGE = 64  # if the upper byte of a sample is at least this large, all 16 bits are used
PHOTOMETRIC = 262  # TIFF tag; the value 0 means that the sample 0 is white
# Byte order of a raw mode -> opposite order, in which Pillow returns the lower byte of a sample.
OPPOSITE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def reduce_to_8_bits(image: Image.Image, data: bytes) -> tuple[Image.Image, str]:
    """Return a decoded 16-bit photo with 8 bits per sample, and a remark.

    The largest sample determines how many bits are used. Pillow decodes only the upper byte of
    samples that are not gray; the lower byte is decoded from `data`, the content of the file.
    """
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)[..., None]
        mode, upper, lower = "L", (levels >> 8).astype(np.uint8), levels.astype(np.uint8)
    elif np.asarray(image).max(axis=(0, 1)).min() >= FULL_RANGE:
        return image, "16-bit"
    else:
        mode, upper, lower = image.mode, np.array(image), _read_lower_bytes(data)
    num_colours = 3 if mode == "RGBA" else upper.shape[2]
    used = []
    for part in (np.s_[..., :num_colours], np.s_[..., num_colours:]):  # alpha may use more bits
        largest = int(upper[part].max(initial=0)) << 8 | int(lower[part].max(initial=0))
        bits = max(8, largest.bit_length() + largest.bit_length() % 2)
        upper[part] = upper[part] << (16 - bits) | lower[part] >> (bits - 8)
        used.append(bits)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
        upper = 255 - upper
    photo = Image.frombytes(mode, image.size, upper.tobytes())
    return photo, "16-bit" if used[0] == 16 else f"16-bit: only {used[0]} bits are used"


def _read_lower_bytes(data: bytes) -> np.ndarray:
    """Decode the lower byte of each sample, uint8 [height, width, num_bands]."""
    image = Image.open(io.BytesIO(data), formats=["PNG", "TIFF"])
    gray_alpha = image.tile[0].args == "LA;16B"  # has no opposite order in Pillow
    for index, tile in enumerate(image.tile):
        raw_mode, *more = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        raw_mode = "RGBA" if gray_alpha else raw_mode[:-1] + OPPOSITE[raw_mode[-1]]
        image.tile[index] = tile._replace(args=(raw_mode, *more))
    image.load()
    # In RGBA, gray and alpha with two bytes each fill the four channels.
    return np.asarray(image)[..., [1, 1, 1, 3] if gray_alpha else slice(None)]
