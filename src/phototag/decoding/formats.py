"""Image formats that phototag decodes, and their file name extensions."""

import io
from contextlib import suppress

from PIL import Image

# Pillow's format name -> its extensions. An MPO is a JPEG followed by more images; phones and 3D
# cameras write it.
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    # HEIF comes after AVIF: files of both may start with the brand mif1, and each decoder refuses
    # the files of the other.
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
}
PHOTO_EXTENSIONS = {extension for group in EXTENSIONS.values() for extension in group}
with suppress(ImportError):  # pillow-heif is an optional dependency
    from pillow_heif import register_heif_opener

    register_heif_opener()
# Pillow opens an MPO as a JPEG and changes its format afterwards, so MPO is not listed.
FORMATS = [name for name in EXTENSIONS if name != "MPO" and (name != "HEIF" or name in Image.OPEN)]


def find_extension(data: bytes) -> str:
    """Return the extension of a photo's format, such as .jpg, or "" if the data is no photo."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return EXTENSIONS[image.format or ""][0]
    except Exception:  # decoders raise any kind of error on damaged files
        return ""
