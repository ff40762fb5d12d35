"""Image formats that phototag can decode, and their file name extensions."""

import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from PIL import Image, features

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file

# Pillow's name of a format -> the format's file name extensions. Pillow opens an MPO file, which
# phones and 3D cameras write, as a JPEG and changes the name of the format to MPO afterwards.
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
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
# Format -> pattern of the first bytes of a file. AVIF and HEIF files start with a list of brands.
SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8",
    "BMP": rb"BM....\0{4}",
    "TIFF": rb"II[*+]|MM\0[*+]",
    "AVIF": rb"....ftyp.*avi[fs]",
    "HEIF": rb"....ftyp.*(he[iv][cxms]|mif1|msf1)",
}
NUM_BYTES = 64  # number of bytes that are compared with a signature
PHOTO_EXTENSIONS = {extension for group in EXTENSIONS.values() for extension in group}
with suppress(ImportError):  # pillow-heif is an optional dependency
    from pillow_heif import register_heif_opener

    register_heif_opener()
FORMATS = [name for name in EXTENSIONS if name != "HEIF" or name in Image.OPEN]


def find_format(data: bytes) -> str:
    """Return the format of an image file, recognised by its first bytes, or "" for other files."""
    for name, signature in SIGNATURES.items():
        if re.match(signature, data[:NUM_BYTES], re.DOTALL):
            return name
    return ""


def missing_decoder(data: bytes) -> str:
    """Return which decoder a photo requires and how to install it, or "" if none is missing."""
    name = find_format(data)
    if name == "HEIF" and name not in FORMATS:
        return "HEIC requires pillow-heif: run `make setup-heic`"
    if name == "AVIF" and not features.check("avif"):
        return "this build of Pillow lacks AVIF: install Pillow with pip"
    return ""


def split_photos(source: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the files of a folder or zip into photos and other files.

    A file is a photo if its extension or its first bytes are those of an image format.
    """
    photos: list[str] = []
    others: list[str] = []
    for name in names:
        is_photo = PurePosixPath(name).suffix.lower() in PHOTO_EXTENSIONS
        if not is_photo:
            with suppress(InputError):
                is_photo = bool(find_format(read_file(source, name, NUM_BYTES)))
        (photos if is_photo else others).append(name)
    return photos, others


def drop_png_metadata(data: bytes) -> bytes:
    """Return a PNG file without metadata, except for intact transparency and EXIF data."""
    chunks, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        kind, checksum = data[start + 4 : start + 8], data[end - 4 : end]
        is_intact = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(checksum)
        if kind[:1].isupper() or (kind in (b"tRNS", b"eXIf") and is_intact):
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)
