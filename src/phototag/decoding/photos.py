"""Decoding of one photo's file into a square of pixels.

The order of the steps: decode fully, convert to 8 bits (`color_modes`), resize and crop, rotate as
the EXIF orientation requires, convert the colour profile to sRGB.
"""

import hashlib
import io
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from phototag.decoding.color_modes import flatten
from phototag.decoding.formats import EXTENSIONS, FORMATS, is_heic
from phototag.decoding.perceptual_hash import perceptual_hash

MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112  # EXIF tag
# EXIF orientation -> transpose that brings the photo upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags


@dataclass(frozen=True)
class Photo:
    """A source file, the decision about it, and its pixels.

    Attributes:
        decision: kept | converted | rejected.
        reason: Remarks of the form `kind` or `kind: detail`, joined by "; "; may be empty.
        format: Pillow's format name (JPEG, PNG, ...); empty if the file could not be read.
        width: Width of the source as stored, in pixels; 0 if it could not be read.
        height: Height of the source as stored, in pixels; 0 if it could not be read.
        mode: Pillow's mode of the source (RGB, L, ...); empty if it could not be read.
        sha256: SHA-256 of the source file, hexadecimal; empty if it could not be read.
        phash: Perceptual hash; empty for a rejected photo and for one without contrast.
        pixels: Pixels, uint8 [size, size, 3], or None if rejected.
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


def prepare_photo(
    data: bytes, size: int, extension: str = "", min_side: int = 1, max_pixels: int = MAX_PIXELS
) -> Photo:
    """Decode a photo's file into a square; a file that cannot be used is returned as rejected.

    Args:
        data: Content of the file.
        size: Side of the square in pixels.
        extension: File name extension in lower case, compared with the content; omit to skip the
            comparison.
        min_side: Minimum of the shorter side in pixels; smaller photos are rejected.
        max_pixels: Maximum number of pixels; larger photos are rejected before decoding.
    """
    photo = Photo("rejected", "", sha256=hashlib.sha256(data).hexdigest())
    if not data:
        return replace(photo, reason="zero bytes")
    # Pillow's warnings are not caught: that would change the warning filters of all threads.
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
        square, changes, remarks = _decode_square(image, size)
    except UnidentifiedImageError:
        if is_heic(data) and "HEIF" not in FORMATS:
            return replace(photo, reason="HEIC needs pillow-heif: run `make setup-heic`")
        return replace(photo, reason=f"not an image: expected one of {', '.join(FORMATS)}")
    except Image.DecompressionBombError:
        return replace(photo, reason="over the pixel limit: Pillow refuses to open it")
    except Exception as error:  # decoders raise any kind of error on damaged files
        message = " ".join(str(error).replace(";", ",").split())[:200] or type(error).__name__
        kind = "truncated" if "truncated" in message.lower() else "unreadable"
        return replace(photo, reason=f"{kind}: {message}")
    if extension and image.format and extension not in EXTENSIONS[image.format]:
        remarks.append(f"wrong extension: {image.format} in {extension}")
    return replace(
        photo,
        decision="converted" if changes else "kept",
        reason="; ".join(dict.fromkeys([*changes, *remarks])),
        phash=perceptual_hash(square),
        pixels=np.asarray(square),
    )


def count_pixels(image: Image.Image) -> int:
    """Return the number of pixels that decoding allocates: of a tiled TIFF at least one tile."""
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    return max(image.width * image.height, tile)


def crop_square(
    image: Image.Image,
    size: int,
    box: tuple[float, float, float, float] | None = None,
    orientation: int = 1,
) -> Image.Image:
    """Resize the shorter side to `size` (bicubic, antialiased), crop the centre, bring it upright.

    The longer side is truncated and the offset of the crop is rounded as in torchvision; pixels
    equal torchvision's up to rounding.

    Args:
        image: An image of a mode that Pillow can resize.
        size: Side of the square in pixels.
        box: Part of `image` that holds the photo (left, top, right, bottom), in pixels. A JPEG that
            was decoded at a fraction of its size ends at a fraction of a pixel. Omit for all of it.
        orientation: EXIF orientation of the photo, 1..8.
    """
    width, height = box[2:] if box else image.size
    shorter = min(width, height)
    columns, rows = int(size * width / shorter), int(size * height / shorter)
    left, top = round((columns - size) / 2), round((rows - size) / 2)
    # The offset is rounded in the upright photo. If the orientation reverses an axis of the stored
    # photo, the offset counts from the other end of that axis.
    if orientation in (2, 3, 7, 8):
        left = columns - size - left
    if orientation in (3, 4, 6, 7):
        top = rows - size - top
    # Resizing the square alone gives the same pixels as resizing the whole photo and cropping, in
    # less time. Rotating after the resize touches the fewest pixels.
    x, y = width / columns, height / rows
    square = (left * x, top * y, (left + size) * x, (top + size) * y)
    image = image.resize((size, size), Image.Resampling.BICUBIC, square)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _decode_square(image: Image.Image, size: int) -> tuple[Image.Image, list[str], list[str]]:
    """Return the square in sRGB, the changes of its pixels, and other remarks."""
    remarks: list[str] = []
    raw_mode = str(getattr(image, "tile", ""))
    # Decoding a JPEG at 1/2, 1/4 or 1/8 of its size skips most of the work. The result is never
    # smaller than the square.
    drafted = image.draft(None, (size, size))
    # Pillow rotates a TIFF while it loads and removes the tag. Other formats may store the tag
    # behind the pixels, so it is read after loading.
    tiff_orientation = _read_orientation(image) if image.format == "TIFF" else 1
    image.load()
    for key in ("exif", "icc_profile", "transparency", "xmp"):
        if isinstance(image.info.get(key), str):  # a PNG text chunk may have any key
            del image.info[key]
    flat, changes = flatten(image, raw_mode)
    orientation = _read_orientation(image)
    if tiff_orientation is None or orientation is None:
        remarks.append("broken EXIF: ignored")
    if tiff_orientation in UPRIGHT or orientation in UPRIGHT:
        changes.append("oriented by EXIF")
    square = crop_square(flat, size, drafted[1] if drafted else None, orientation or 1)
    # Colours are converted last because the square has the fewest pixels.
    if profile := image.info.get("icc_profile"):
        transform, name = _srgb_transform(profile, square.mode)
        if transform:
            changes.append(f"ICC profile: {name} to sRGB")
            converted = ImageCms.applyTransform(square, transform)
            assert converted is not None
            square = converted
        elif not name.startswith("sRGB"):
            remarks.append(f"broken ICC profile: {name}")
    if getattr(image, "is_animated", False):
        remarks.append("animated: first frame")
    return square.convert("RGB"), changes, remarks


def _read_orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 0..8 (1 if there is none), or None if the EXIF is broken."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
        return int(value) if value in range(9) else None
    except Exception:  # Pillow raises many kinds of errors on broken EXIF; the pixels are intact
        return None


@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """Return the transform to sRGB (None if not needed or not possible) and the profile's name."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source)
        name = " ".join(name.replace(";", ",").split()) or "unnamed"
        if name.startswith("sRGB"):
            return None, name
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB"), name
    except (ImageCms.PyCMSError, OSError):  # not a profile, or a profile for another mode
        return None, "ignored"
