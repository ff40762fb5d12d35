"""Image formats that are read, and their file name extensions."""

import io
from contextlib import suppress

from PIL import Image

# Pillow's name of a format -> the extensions that go with it. MPO is a JPEG with more pictures
# behind the first, as phones and 3D cameras write it.
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    # After AVIF, whose files may bear the same mark (mif1): each takes what the other cannot read.
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
}
PHOTO_EXTENSIONS = {extension for group in EXTENSIONS.values() for extension in group}
with suppress(ImportError):  # an extra
    from pillow_heif import register_heif_opener

    register_heif_opener()
# Pillow opens an MPO as JPEG and finds out afterwards.
FORMATS = [name for name in EXTENSIONS if name != "MPO" and (name != "HEIF" or name in Image.OPEN)]


def find_extension(data: bytes) -> str:
    """Return the extension that goes with a photo's content, such as .jpg; "" for no photo."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return EXTENSIONS[image.format or ""][0]
    except Exception:  # as in prepare_photo
        return ""
