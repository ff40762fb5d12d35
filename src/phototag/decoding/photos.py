"""Decode one image file into a square of pixels.

The steps, in this order: decode the whole file, convert the pixels to 8 bits per sample, resize and
crop, rotate according to the EXIF orientation, and convert the colours to sRGB.
"""

import hashlib
import io
import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base

from phototag.decoding.formats import FORMATS, drop_png_metadata, missing_decoder
from phototag.decoding.perceptual_hash import perceptual_hash

MAX_PIXELS = 100_000_000
DECODER_MISSING = "decoder missing"  # kind of the remark on a photo that this machine cannot decode
# EXIF orientation -> transposition that turns the photo upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
REDUCED, SIGNED, WHITE_IS_ZERO = 1, 2, 0  # values of the TIFF tags in `Base`
MIN_BITS = 15  # if the largest 16-bit sample has fewer bits, the photo would be too dark
COLOURS = 17 * np.indices((16, 16, 16), np.uint8).reshape(3, 64, 64).T
MAX_DIFFERENCE = 2  # maximum change of a sample (0..255) by a profile that is equal to sRGB
DAMAGED = ("not an image", "unreadable", "truncated")  # first words of reasons


@dataclass(frozen=True)
class Photo:
    """A source file with the decision about it and, if it is not rejected, its pixels.

    Attributes:
        decision: kept | converted | rejected.
        reason: Remarks of the form `kind` or `kind: detail`, joined by "; "; may be empty.
        format: Pillow's name of the format (JPEG, PNG, ...); empty if the file could not be read.
        width: Width of the stored image in pixels; 0 if the file could not be read.
        height: Height of the stored image in pixels; 0 if the file could not be read.
        mode: Pillow's mode of the stored image (RGB, L, ...); empty if the file could not be read.
        sha256: SHA-256 of the file, hexadecimal; empty if the file could not be read.
        phash: Perceptual hash; empty if the photo was rejected or has no contrast.
        pixels: Pixels, uint8 [size, size, 3], or None if the photo was rejected.
    """

    decision: str
    reason: str
    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    phash: str = ""
    pixels: np.ndarray | None = None


def prepare_photo(data: bytes, size: int, min_side: int = 1, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode an image file into a square; return a rejected `Photo` if the file is not usable.

    Args:
        data: Content of the image file.
        size: Side of the square in pixels.
        min_side: Minimum length of the shorter side in pixels; smaller photos are rejected.
        max_pixels: Maximum number of pixels; larger photos are rejected before decoding.
    """
    photo = Photo("rejected", "", sha256=hashlib.sha256(data).hexdigest())
    if not data:
        return replace(photo, reason="zero bytes")
    decided = _decide(photo, data, size, min_side, max_pixels)
    if data.startswith(b"\x89PNG") and decided.reason.startswith(DAMAGED):
        # Pillow refuses a PNG with damaged or very large metadata.
        return _decide(photo, drop_png_metadata(data), size, min_side, max_pixels)
    return decided


def _decide(photo: Photo, data: bytes, size: int, min_side: int, max_pixels: int) -> Photo:
    """Decode a file and add everything except the hash to `photo`; see `prepare_photo`."""
    # Catching Pillow's warnings here would change the warning filters of all threads.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        photo = replace(
            photo, format=image.format or "", width=width, height=height, mode=image.mode
        )
        if count_pixels(image) > max_pixels:
            return replace(photo, reason="over the pixel limit")
        if min(width, height) < min_side:
            return replace(photo, reason="too small")
        square, changes = _decode_square(image, size)
        remarks = ["animated: first frame"] if getattr(image, "is_animated", False) else []
        if getattr(image, "tag_v2", {}).get(Base.NewSubfileType) == REDUCED:  # as in a raw file
            remarks.append("preview: the larger image in the file cannot be read")
    except UnidentifiedImageError:
        if missing := missing_decoder(data):
            return replace(photo, reason=f"{DECODER_MISSING}: {missing}")
        known = ", ".join(FORMATS)
        return replace(photo, reason=f"not an image that can be read: expected one of {known}")
    except Image.DecompressionBombError:
        return replace(photo, reason="over the pixel limit: Pillow refuses to open it")
    except Exception as error:  # decoders raise many kinds of errors on damaged files
        message = " ".join(str(error).replace(";", ",").split())[:200] or type(error).__name__
        kind = "truncated" if "truncated" in message.lower() else "unreadable"
        return replace(photo, reason=f"{kind}: {message}")
    phash = perceptual_hash(square)
    if not phash:
        remarks.append("no contrast: all pixels are nearly equally bright")
    return replace(
        photo,
        decision="converted" if changes else "kept",
        reason="; ".join(changes + remarks),
        phash=phash,
        pixels=np.asarray(square),
    )


def read_shorter_side(data: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Return the shorter side of an image in pixels according to its header.

    Return 0 if the header cannot be read, or if the image has more than `max_pixels` pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        return 0 if count_pixels(image) > max_pixels else min(image.size)
    except Exception:  # `prepare_photo` reports the file
        return 0


def count_pixels(image: Image.Image) -> int:
    """Return the number of pixels that decoding allocates (for a tiled TIFF, at least one tile)."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag) for tag in (Base.TileWidth, Base.TileLength)]
    # In a damaged file, the sides may be text.
    tile = math.prod(side if isinstance(side, int) else 0 for side in sides)
    return max(image.width * image.height, tile)


def crop_square(
    image: Image.Image,
    size: int,
    box: tuple[float, float, float, float] | None = None,
    orientation: int = 1,
) -> Image.Image:
    """Resize the shorter side to `size`, crop the centre, and turn the square upright.

    The interpolation is bicubic with antialiasing. The length of the longer side and the offset of
    the crop are rounded as in torchvision, so the pixels equal torchvision's up to rounding.

    Args:
        image: An image of a mode that Pillow can resize.
        size: Side of the square in pixels.
        box: Part of `image` that the photo fills (left, top, right, bottom), in pixels. The
            values may be fractions if a JPEG was decoded at reduced size. Omit to use all pixels.
        orientation: EXIF orientation of the photo, 1..8.
    """
    width, height = box[2:] if box else image.size
    shorter = min(width, height)
    columns, rows = int(size * width / shorter), int(size * height / shorter)
    left, top = round((columns - size) / 2), round((rows - size) / 2)
    # The offset is rounded in the upright photo. If the orientation reverses an axis of the stored
    # photo, the offset is measured from the other end of that axis.
    if orientation in (2, 3, 7, 8):
        left = columns - size - left
    if orientation in (3, 4, 6, 7):
        top = rows - size - top
    # Resizing only the square gives the same pixels as resizing the whole photo and cropping, but
    # takes less time. Rotating is cheapest after the resize because the fewest pixels are left.
    x, y = width / columns, height / rows
    square = (left * x, top * y, (left + size) * x, (top + size) * y)
    image = image.resize((size, size), Image.Resampling.BICUBIC, square)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _decode_square(image: Image.Image, size: int) -> tuple[Image.Image, list[str]]:
    """Return the square in sRGB, and a remark for each conversion that changed its pixels."""
    tags = getattr(image, "tag_v2", {})
    raw_mode = str(getattr(image, "tile", ""))  # read before decoding clears `tile`
    # A name such as RGB;16B means 16 bits per sample, but BGR;16 means 16 bits per pixel.
    is_16_bit = image.mode.startswith("I;16") or re.search(";16[BLN]", raw_mode)
    # Pillow would read 16-bit samples in separate planes as 8-bit samples.
    is_misread = 16 in tags.get(Base.BitsPerSample, ()) and not is_16_bit
    if image.mode in ("I", "F") or SIGNED in tags.get(Base.SampleFormat, ()) or is_misread:
        raise ValueError(
            "signed, floating point, 32-bit or planar 16-bit samples are not supported: save the "
            "photo with 8 bits per sample"
        )
    # Decoding a JPEG at 1/2, 1/4 or 1/8 of its size saves most of the work. `draft` chooses a size
    # that is never smaller than the square.
    drafted = image.draft(None, (size, size))
    # Pillow rotates a TIFF and removes the tag when it loads the pixels, so the tag is read first.
    # Other formats may store the tag after the pixels, so it is read after loading.
    tiff_orientation = _read_orientation(image) if image.format == "TIFF" else 1
    image.load()
    flat, changes = _reduce_to_8_bits(image) if is_16_bit else (image, [])
    flat, remark = _flatten(flat)
    changes += [remark] if remark else []
    orientation = _read_orientation(image)
    if tiff_orientation > 1 or orientation > 1:
        changes.append("oriented by EXIF")
    square = crop_square(flat, size, drafted[1] if drafted else None, orientation)
    # Colours are converted last because the square has the fewest pixels.
    transform = _srgb_transform(image.info.get("icc_profile"), square.mode)
    if transform:
        changes.append("ICC profile: converted to sRGB")
        converted = ImageCms.applyTransform(square, transform)
        assert converted is not None
        square = converted
    return square.convert("RGB"), changes


def _reduce_to_8_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return a decoded 16-bit photo with 8 bits per sample, and a remark."""
    # Pillow reads only the upper 8 bits of samples that are not gray, so these are not scaled.
    if not image.mode.startswith("I;16"):
        colours = image if image.mode == "CMYK" else image.convert("RGB")  # without alpha
        bits = 8 + int(np.asarray(colours).max()).bit_length()
        if bits < MIN_BITS:
            raise ValueError(
                f"the largest 16-bit sample uses only {bits} bits: save the photo with 8 bits per "
                "sample"
            )
        return image, ["16-bit"]
    # Gray samples are scaled by the number of bits in the largest one, often 10, 12 or 14.
    levels = np.asarray(image).astype(np.uint16)
    bits = max(8, 2 * math.ceil(int(levels.max()).bit_length() / 2))
    gray = (levels >> (bits - 8)).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(Base.PhotometricInterpretation) == WHITE_IS_ZERO:
        gray = 255 - gray
    return Image.fromarray(gray), ["16-bit" if bits == 16 else f"16-bit: only {bits} bits are used"]


def _flatten(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert an image to mode L, RGB or CMYK; return the image and a remark or ""."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if not rgba.getchannel("A").getbbox():  # some programs write 0 into an unused alpha channel
            return rgba.convert("RGB"), "alpha: ignored because it is 0 everywhere"
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB"), "alpha: composited on white"
    names = {"RGB": "", "L": "grayscale", "1": "grayscale", "P": "palette"}
    remark = names.get(image.mode, image.mode)
    if image.mode in ("L", "RGB", "CMYK"):
        return image, remark
    return image.convert("L" if image.mode == "1" else "RGB"), remark


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1..8, or 1 if the EXIF data has none or is broken."""
    try:
        value = image.getexif().get(Base.Orientation, 1)
        return int(value) if value in UPRIGHT else 1
    except Exception:  # Pillow raises many kinds of errors on broken EXIF; the pixels are intact
        return 1


@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB, or None if it is unnecessary or impossible."""
    if not profile:
        return None
    colours = Image.fromarray(COLOURS).convert(mode)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        converted = np.asarray(ImageCms.applyTransform(colours, transform), np.int16)
    except Exception:  # not a valid profile for this mode; lcms raises several kinds of errors
        return None
    # Profiles named sRGB may have other tone curves, so the effect on sample colours decides.
    is_srgb = np.abs(converted - np.asarray(colours.convert("RGB"))).max() <= MAX_DIFFERENCE
    return None if is_srgb else transform
