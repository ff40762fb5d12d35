import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from phototag.images import crop_square, prepare_photo, prepare_photos, write_images


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "shape", [(64, 64), (100, 60), (60, 100), (33, 57), (57, 33), (10, 20), (500, 375), (65, 64)]
)
def test_crop_equals_torchvision(shape: tuple[int, int]) -> None:
    image = random_image(*shape)
    resized = tv.resize(image, [32], InterpolationMode.BICUBIC, antialias=True)
    expected = np.asarray(tv.center_crop(resized, [32, 32]))
    assert np.array_equal(np.asarray(crop_square(image, 32)), expected)


@pytest.mark.parametrize(
    ("mode", "decision", "reason"),
    [
        ("RGB", "kept", ""),
        ("L", "converted", "grayscale"),
        ("1", "converted", "grayscale"),
        ("P", "converted", "mode P"),
        ("RGBA", "converted", "alpha (RGBA) on white"),
        ("LA", "converted", "alpha (LA) on white"),
        ("I;16", "converted", "16-bit grayscale"),
    ],
)
def test_modes(mode: str, decision: str, reason: str) -> None:
    photo = prepare_photo(encode(random_image(20, 20).convert("L").convert(mode)), 16)
    assert (photo.decision, photo.reason, photo.mode) == (decision, reason, mode)
    assert photo.pixels is not None
    assert photo.pixels.shape == (16, 16, 3)
    assert photo.pixels.dtype == np.uint8


def test_cmyk_is_converted() -> None:
    photo = prepare_photo(encode(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"), 16)
    assert (photo.decision, photo.reason) == ("converted", "mode CMYK")
    assert photo.pixels is not None
    assert photo.pixels[8, 8, 0] > 150 > 100 > photo.pixels[8, 8, 2]


def test_transparent_pixels_become_white() -> None:
    photo = prepare_photo(encode(Image.new("RGBA", (20, 20), (9, 9, 9, 0))), 16)
    assert photo.pixels is not None
    assert (photo.pixels == 255).all()


def test_sixteen_bits_keep_their_upper_eight() -> None:
    values = np.full((20, 20), 0x80FF, np.uint16)
    photo = prepare_photo(encode(Image.fromarray(values)), 16)
    assert photo.pixels is not None
    assert (photo.pixels == 0x80).all()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_comes_out_upright(orientation: int) -> None:
    upright = random_image(24, 24)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpose that each code reverses
    stored = upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = prepare_photo(encode(stored, "PNG", exif=exif), 24)
    assert (photo.decision, photo.reason) == ("converted", "oriented by EXIF")
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(upright))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    photo = prepare_photo(data, 16)
    assert photo.reason.startswith("animated: first frame")
    assert photo.pixels is not None
    assert tuple(photo.pixels[8, 8]) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"no picture", "not an image"),
        (encode(random_image(64, 64), "JPEG")[:900], "unreadable: "),
    ],
)
def test_bad_files_are_rejected_with_the_reason(data: bytes, reason: str) -> None:
    photo = prepare_photo(data, 16)
    assert photo.decision == "rejected"
    assert photo.reason.startswith(reason)
    assert photo.pixels is None


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    photo = prepare_photo(encode(random_image(20, 20)), 16)
    assert photo.decision == "rejected"
    assert photo.reason.startswith("over the pixel limit")


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_packed_file_is_the_array(tmp_path: Path, jobs: int) -> None:
    names = [f"im{number}.png" for number in range(1, 131)]
    for number, name in enumerate(names):
        data = b"broken" if number % 50 == 3 else encode(random_image(12, 10, number))
        (tmp_path / name).write_bytes(data)
    (tmp_path / "portrait.png").write_bytes(encode(random_image(12, 10)))
    names.append("portrait.png")
    photos = list(prepare_photos(tmp_path, names, 8, n_jobs=jobs))
    decided = write_images(tmp_path / "images.npy", photos, 8)

    expected = np.stack([photo.pixels for photo in photos if photo.pixels is not None])
    assert len(expected) == 127
    np.save(tmp_path / "expected.npy", expected)
    assert (tmp_path / "images.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert np.array_equal(np.load(tmp_path / "images.npy", mmap_mode="r"), expected)
    assert all(photo.pixels is None for photo in decided)
    assert decided[-1].reason == "the name is not imN.jpg, with a number N"
