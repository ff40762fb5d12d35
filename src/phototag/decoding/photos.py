"""One photo's file to a square of uint8: decode fully, resize, orient, crop, convert to sRGB."""

import hashlib
import io
import re
import struct
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from phototag.decoding.formats import EXTENSIONS, FORMATS
from phototag.decoding.perceptual_hash import perceptual_hash

MAX_PIXELS = 100_000_000
# The brands of ISO/IEC 23008-12 (after `ftyp`, at byte 8) whose pictures are coded as HEVC.
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1"}
# What brings each EXIF orientation upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF's tags
# TIFF 6.0's types of values -> bytes of each.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


@dataclass(frozen=True)
class Photo:
    """One source file and what was decided about it.

    Attributes:
        decision: kept | converted | rejected.
        reason: Why, in words, each of the form `kind` or `kind: detail`, joined by semicolons;
            empty where there is nothing to tell.
        format: Pillow's name (JPEG, PNG, ...); empty when it could not be read.
        width: Of the source as stored, in pixels; 0 when it could not be read.
        height: Of the source as stored, in pixels; 0 when it could not be read.
        mode: Pillow's mode of the source (RGB, L, ...); empty when it could not be read.
        sha256: Of the source file's bytes; empty when it could not be read.
        phash: Of `perceptual_hash`; empty for a rejected or a flat photo.
        pixels: uint8 [size, size, 3], or None when rejected.
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
    """Decode one file fully and make it a square of `size` pixels.

    A file that cannot be used is never raised about: it comes back rejected, with the reason.

    Args:
        data: The file.
        size: Of the square, in pixels a side.
        extension: Of the file's name, to be compared with its content; "" compares nothing.
        min_side: A photo with a shorter side is rejected.
        max_pixels: A photo of more pixels is rejected before it is decoded.
    """
    blank = Photo("rejected", "", sha256=hashlib.sha256(data).hexdigest())
    if not data:
        return replace(blank, reason="zero bytes")
    # Pillow warns of broken metadata and of sizes, which are judged here. Its warnings go where
    # the process sends them: to catch them would change the filters of all threads at once.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        blank = replace(
            blank, format=image.format or "", width=width, height=height, mode=image.mode
        )
        if count_pixels(image) > max_pixels:
            return replace(blank, reason="over the pixel limit")
        if min(width, height) < min_side:
            return replace(blank, reason="too small")
        rgb, changes, notes = _make_square(image, size, data)
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and "HEIF" not in FORMATS:
            return replace(blank, reason="HEIC needs pillow-heif: run `make setup-heic`")
        return replace(blank, reason="not an image: none of " + ", ".join(FORMATS))
    except Image.DecompressionBombError:
        return replace(blank, reason="over the pixel limit: refused unread")
    except Exception as error:  # decoders of hostile files raise anything at all
        message = " ".join(str(error).replace(";", ",").split())[:200] or type(error).__name__
        kind = "truncated" if "truncated" in message.lower() else "unreadable"
        return replace(blank, reason=f"{kind}: {message}")
    if extension and image.format and extension not in EXTENSIONS[image.format]:
        notes.append(f"wrong extension: {image.format} in {extension}")
    return replace(
        blank,
        decision="converted" if changes else "kept",
        reason="; ".join(dict.fromkeys([*changes, *notes])),
        phash=perceptual_hash(rgb),
        pixels=np.asarray(rgb),
    )


def count_pixels(image: Image.Image) -> int:
    """Count the pixels that decoding holds: of a TIFF a whole tile, however small the photo."""
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    return max(image.width * image.height, tile)


def crop_square(
    image: Image.Image,
    size: int,
    box: tuple[float, float, float, float] | None = None,
    orientation: int = 1,
) -> Image.Image:
    """Resize the shorter side to `size` (bicubic, antialiased) and crop the centre.

    The longer side is truncated and the crop's offset rounded as torchvision does it; the pixels
    are torchvision's up to rounding.

    Args:
        image: Any mode that Pillow can resize.
        size: In pixels.
        box: The part of `image` that holds the photo: a JPEG that was decoded at a fraction of
            its size ends within a pixel.
        orientation: The EXIF tag, 1..8; the photo is brought upright before it is cropped.
    """
    width, height = box[2:] if box else image.size
    shorter = min(width, height)
    columns, rows = int(size * width / shorter), int(size * height / shorter)
    left, top = round((columns - size) / 2), round((rows - size) / 2)
    # The offset is rounded upright: where that turns an axis round, count from the other end.
    if orientation in (2, 3, 7, 8):
        left = columns - size - left
    if orientation in (3, 4, 6, 7):
        top = rows - size - top
    # Resizing the square alone gives the pixels of resizing all and cropping, for less.
    x, y = width / columns, height / rows
    square = (left * x, top * y, (left + size) * x, (top + size) * y)
    image = image.resize((size, size), Image.Resampling.BICUBIC, square)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _make_square(
    image: Image.Image, size: int, data: bytes
) -> tuple[Image.Image, list[str], list[str]]:
    """Return the square in sRGB, what changed its pixels, and what did not, in words."""
    changes: list[str] = []
    notes: list[str] = []
    # How samples are stored is forgotten once they are decoded.
    packing = str(getattr(image, "tile", ""))
    # Decoding a JPEG at a half, a quarter or an eighth of its size skips most of the work; what
    # is left is never smaller than the square.
    drafted = image.draft(None, (size, size))
    # Pillow brings a TIFF upright while it loads, and drops the tag. Of other formats the tag is
    # read afterwards, because it may stand behind the pixels.
    stored = _read_orientation(image) if image.format == "TIFF" else 1
    image.load()
    for key in ("exif", "icc_profile", "transparency", "xmp"):
        if isinstance(image.info.get(key), str):  # a text of a PNG, which may have any key
            del image.info[key]
    flat = _flatten(image, changes, packing, data)
    orientation = _read_orientation(image)
    if stored is None or orientation is None or not _is_whole(image.info.get("exif") or b""):
        notes.append("broken EXIF: ignored")
    if stored in UPRIGHT or orientation in UPRIGHT:
        changes.append("oriented by EXIF")
    square = crop_square(flat, size, drafted[1] if drafted else None, orientation or 1)
    # Colours are converted last, on the fewest pixels.
    profile = image.info.get("icc_profile")
    if profile:
        transform, name = _srgb_transform(profile, square.mode)
        if transform:
            changes.append(f"ICC profile: {name} to sRGB")
            converted = ImageCms.applyTransform(square, transform)
            assert converted is not None
            square = converted
        elif not name.startswith("sRGB"):
            notes.append(f"broken ICC profile: {name}")
    if getattr(image, "is_animated", False):
        notes.append("animated: first frame")
    return square.convert("RGB"), changes, notes


def _flatten(image: Image.Image, changes: list[str], packing: str, data: bytes) -> Image.Image:
    """Bring an image into one of the modes L, RGB and CMYK."""
    if ";16" in packing or image.mode.startswith("I;16"):
        changes.append("16-bit")
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.has_transparency_data:
        changes.append("alpha: composited on white")
        transparent = image.info.get("transparency")
        if image.mode.startswith("I;16"):
            return _keep_upper(image, packing, transparent)
        if "RGB;16B" in packing and isinstance(transparent, tuple):
            return _whiten(image, transparent, data)
        if image.mode == "L" and isinstance(transparent, int):
            # Pillow spreads samples of 2 and 4 bits over 0..255, but not the transparent value.
            image.info["transparency"] = transparent * _spread(packing)
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode.startswith("I;16"):
        changes.append("grayscale")
        return _keep_upper(image, packing, None)
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits a pixel (mode {image.mode}) have no agreed range")
    names = {"L": "grayscale", "1": "grayscale", "P": "palette"}
    changes.append(names.get(image.mode, image.mode))
    if image.mode in ("L", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _keep_upper(image: Image.Image, packing: str, transparent: int | None) -> Image.Image:
    """Keep the upper eight of 16 (or 12) bits of gray, which Pillow would clip at 255."""
    levels = np.asarray(image).astype(np.uint16)
    upper = (levels >> (4 if ";12" in packing else 8)).astype(np.uint8)
    # All 16 bits decide what is transparent.
    upper[levels == transparent] = 255
    # TIFF's PhotometricInterpretation 0: white is 0.
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0:
        upper = 255 - upper
    return Image.fromarray(upper)


def _whiten(image: Image.Image, transparent: tuple[int, ...], data: bytes) -> Image.Image:
    """Make the transparent colour of a PNG with 3 x 16 bits white.

    Pillow keeps the upper eight bits only and compares them with the lower eight of the colour;
    all 16 decide.
    """
    lower = Image.open(io.BytesIO(data), formats=["PNG"])
    # Read with the other byte order, the upper bits are the lower ones.
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
    colour = np.array(transparent)
    pixels = np.array(image)
    clear = (pixels == colour >> 8) & (np.asarray(lower) == colour & 255)
    pixels[clear.all(axis=2)] = 255
    return Image.fromarray(pixels)


def _spread(packing: str) -> int:
    """Return the factor from a gray PNG's own samples to 0..255."""
    return 85 if "L;2" in packing else 17 if "L;4" in packing else 1


def _read_orientation(image: Image.Image) -> int | None:
    """Return the orientation as Pillow reads it, 0..8, or None where there is no such value."""
    try:
        value = image.getexif().get(0x0112, 1)
        return int(value) if value in range(9) else None
    except Exception:  # a broken block raises a dozen kinds of error; the pixels are fine
        return None


def _is_whole(exif: bytes) -> bool:
    """Tell whether the first directory of an EXIF block, and all its values, lie within it.

    Pillow reads what it can and only warns of the rest, or says nothing at all.
    """
    block = re.sub(rb"^(Exif\0\0){1,2}", b"", exif)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if not block or order is None:
        return not block
    try:
        (start,) = struct.unpack_from(f"{order}L", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            _, kind, length, place = struct.unpack_from(f"{order}HHLL", block, entry)
            size = TYPE_BYTES.get(kind, 0) * length
            if size > 4 and place + size > len(block):
                return False
    except struct.error:
        return False
    return True


@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """Return the transform to sRGB, None where there is nothing to do, and the profile's name."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source)
        name = " ".join(name.replace(";", ",").split()) or "without a name"
        if name.startswith("sRGB"):
            return None, name
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB"), name
    except (ImageCms.PyCMSError, OSError):  # no profile, or one for another mode
        return None, "ignored"
