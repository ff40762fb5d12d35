"""Image formats that phototag can decode, and their file name extensions."""

import io
from contextlib import suppress

from PIL import Image

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
PHOTO_EXTENSIONS = {extension for group in EXTENSIONS.values() for extension in group}
with suppress(ImportError):  # pillow-heif is an optional dependency
    from pillow_heif import register_heif_opener

    register_heif_opener()
# Pillow opens an MPO file as a JPEG and changes the format afterwards, so MPO is not listed.
FORMATS = [name for name in EXTENSIONS if name != "MPO" and (name != "HEIF" or name in Image.OPEN)]


def find_extension(data: bytes) -> str:
    """Return the file extension of an image, such as .jpg, or "" if the data is not an image."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return EXTENSIONS[image.format or ""][0]
    except Exception:  # decoders raise many kinds of errors on damaged files
        return ""
