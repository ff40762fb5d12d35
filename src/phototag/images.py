"""Photos to square uint8 arrays: decode fully, orient, convert to RGB, resize, crop, pack."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageOps, UnidentifiedImageError

from phototag.files import replace_file
from phototag.labels import image_number
from phototag.raw import read_file

CHUNK = 64  # photos a task: large enough to hide the cost of sending a task to a worker


@dataclass(frozen=True)
class Photo:
    """One source file and what was decided about it.

    Attributes:
        decision: kept | converted | rejected.
        reason: Why, in words; empty for a photo kept as it is.
        width: Of the source, in pixels; 0 when it could not be read.
        height: Of the source, in pixels; 0 when it could not be read.
        mode: Pillow's mode of the source (RGB, L, ...); empty when it could not be read.
        sha256: Of the source file's bytes.
        pixels: uint8 [size, size, 3], or None when rejected.
    """

    decision: str
    reason: str
    width: int
    height: int
    mode: str
    sha256: str
    pixels: np.ndarray | None


def crop_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (bicubic, antialiased) and crop the centre.

    The longer side is truncated and the crop's offset rounded as torchvision does it.
    """
    width, height = image.size
    shorter = min(width, height)
    resized = (size * width // shorter, size * height // shorter)
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Orient by EXIF and convert to RGB; alpha is composited on white.

    Returns:
        The image, and what was done to it in words (nothing for an upright RGB image).
    """
    done = []
    if getattr(image, "n_frames", 1) > 1:
        done.append("animated: first frame")
    try:
        oriented = ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block raises a dozen kinds of error; the pixels are fine
        oriented = image
        done.append("broken EXIF ignored")
    if oriented.size != image.size or image.getexif().get(0x0112, 1) not in (0, 1):
        done.append("oriented by EXIF")
    if oriented.mode == "RGB":
        return oriented, done
    if oriented.has_transparency_data:
        done.append(f"alpha ({oriented.mode}) on white")
        rgba = oriented.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB"), done
    if oriented.mode.startswith("I"):
        # Pillow would clip 16 bits a pixel at 255; keep the upper eight.
        done.append("16-bit grayscale")
        values = np.asarray(oriented).astype(np.int64) >> 8
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB"), done
    done.append("grayscale" if oriented.mode in ("L", "1") else f"mode {oriented.mode}")
    return oriented.convert("RGB"), done


def prepare_photo(data: bytes, size: int) -> Photo:
    """Decode one file fully and make it a square of `size` pixels.

    A file that cannot be used is never raised about: it comes back rejected, with the reason.
    """
    sha256 = hashlib.sha256(data).hexdigest()

    def reject(reason: str) -> Photo:
        return Photo("rejected", reason, 0, 0, "", sha256, None)

    if not data:
        return reject("zero bytes")
    try:
        image = Image.open(io.BytesIO(data))
        width, height, mode = *image.size, image.mode
        image.load()
        rgb, done = to_rgb(image)
        pixels = np.asarray(crop_square(rgb, size))
    except UnidentifiedImageError:
        return reject("not an image")
    except Image.DecompressionBombError as error:
        return reject(f"over the pixel limit: {error}")
    except Exception as error:  # decoders of hostile files raise anything at all
        return reject(f"unreadable: {error}")
    decision = "converted" if done else "kept"
    return Photo(decision, "; ".join(done), width, height, mode, sha256, pixels)


def prepare_photos(
    source: Path, names: Sequence[str], size: int, n_jobs: int = -1
) -> Iterator[Photo]:
    """Prepare many photos in parallel and yield them in the order of `names`."""
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    parallel = Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="4*n_jobs")
    for photos in parallel(delayed(_prepare_chunk)(source, chunk, size) for chunk in chunks):
        yield from photos


def _prepare_chunk(source: Path, names: Sequence[str], size: int) -> list[Photo]:
    return [_prepare_file(source, name, size) for name in names]


def _prepare_file(source: Path, name: str, size: int) -> Photo:
    data = read_file(source, name)
    if image_number(name) is None:
        sha256 = hashlib.sha256(data).hexdigest()
        return Photo("rejected", "the name is not imN.jpg, with a number N", 0, 0, "", sha256, None)
    return prepare_photo(data, size)


def write_images(path: Path, photos: Iterable[Photo], size: int) -> list[Photo]:
    """Stream photos into one packed .npy file, uint8 [num_images, size, size, 3].

    Rejected photos take no row. The array is never held in memory.

    Returns:
        Every photo, the rejected ones included, without its pixels.
    """
    decided = []
    num_images = 0
    with replace_file(path) as temporary, temporary.open("wb") as file:
        _write_header(file, num_images, size)
        for photo in photos:
            if photo.pixels is not None:
                file.write(photo.pixels.tobytes())
                num_images += 1
            decided.append(replace(photo, pixels=None))
        # NumPy pads the header so that the first dimension can grow in place.
        file.seek(0)
        _write_header(file, num_images, size)
    return decided


def _write_header(file: io.BufferedWriter, num_images: int, size: int) -> None:
    shape = (num_images, size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
