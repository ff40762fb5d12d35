"""Image formats that phototag can decode, and their file name extensions."""

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from PIL import Image, features

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file

# Pillow's name of a format -> the format's file name extensions. An MPO file, which phones and 3D
# cameras write, is a JPEG followed by more images.
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    # HEIF comes after AVIF. Files of both formats may start with the brand mif1, but each decoder
    # refuses the files of the other format.
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
}
# First bytes of a file in one of these formats.
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|GIF8|BM|II[*+]|MM\0[*+]|....ftyp(av|he|mi|ms)", re.DOTALL
)
PHOTO_EXTENSIONS = {extension for group in EXTENSIONS.values() for extension in group}
with suppress(ImportError):  # pillow-heif is an optional dependency
    from pillow_heif import register_heif_opener

    register_heif_opener()
# Pillow opens an MPO file as a JPEG and changes the format afterwards, so MPO is not listed.
FORMATS = [name for name in EXTENSIONS if name != "MPO" and (name != "HEIF" or name in Image.OPEN)]


def missing_decoder(data: bytes) -> str:
    """Return which decoder a photo requires and how to install it, or "" if none is missing."""
    brands = data[8:64] if data[4:8] == b"ftyp" else b""
    if "HEIF" not in FORMATS and re.search(rb"he[iv][cxms]", brands):
        return "HEIC requires pillow-heif: run `make setup-heic`"
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    for name, found in (("avif", re.search(rb"avi[fs]", brands)), ("webp", is_webp)):
        if found and not features.check(name):
            return f"this build of Pillow lacks {name.upper()}: install Pillow with pip"
    return ""


def find_extension(data: bytes) -> str:
    """Return the file extension of an image, such as .jpg, or "" if the data is not an image."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return EXTENSIONS[image.format or ""][0]
    except Exception:  # decoders raise many kinds of errors on damaged files
        return ""


def split_photos(source: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the files of a folder or zip into photos and other files.

    A file is a photo if its extension is that of a photo, or if its content is an image.
    """
    photos: list[str] = []
    others: list[str] = []
    for name in names:
        is_photo = PurePosixPath(name).suffix.lower() in PHOTO_EXTENSIONS
        (photos if is_photo or _is_image(source, name) else others).append(name)
    return photos, others


def drop_png_metadata(data: bytes) -> Iterator[bytes]:
    """Yield a PNG file without text and damaged metadata, then also without colour profile."""
    for kept in ((b"tRNS", b"eXIf", b"iCCP"), (b"tRNS", b"eXIf")):
        chunks, start = [data[:8]], 8
        while start < len(data):
            end = start + 12 + int.from_bytes(data[start : start + 4])
            kind, checksum = data[start + 4 : start + 8], data[end - 4 : end]
            is_intact = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(checksum)
            if kind[:1].isupper() or (kind in kept and is_intact):
                chunks.append(data[start:end])
            start = end
        yield b"".join(chunks)


def _is_image(source: Path, name: str) -> bool:
    try:  # videos are large, so only files that start like an image are read whole
        if not SIGNATURE.match(read_file(source, name, num_bytes=16)):
            return False
        data = read_file(source, name)
        return bool(find_extension(data) or missing_decoder(data))
    except InputError:
        return False
