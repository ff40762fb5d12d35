import hashlib
import io
from pathlib import Path

import dask
import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from phototag.intake.duplicates import perceptual_hash
from phototag.intake.images import crop_square, prepare_photo, prepare_photos, write_images
from tests.intake.corpus import wide_gamut_profile


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
    image = random_image(9, 9).resize(shape, Image.Resampling.BICUBIC)
    resized = tv.resize(image, [32], InterpolationMode.BICUBIC, antialias=True)
    expected = np.asarray(tv.center_crop(resized, [32, 32]), np.int16)
    # Pillow rounds between its two passes, and takes them in an order that hangs on the box.
    difference = np.abs(np.asarray(crop_square(image, 32)) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (2048, 1536), (1021, 767), (130, 999)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_decoded_at_a_fraction_shows_the_same(
    shape: tuple[int, int], orientation: int
) -> None:
    image = random_image(12, 9).resize(shape, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "JPEG", quality=95, exif=exif)
    photo = prepare_photo(data, 128)
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = np.asarray(crop_square(whole, 128), np.int16)
    assert photo.pixels is not None
    difference = np.abs(photo.pixels - expected)
    # Decoding at a fraction averages blocks where the full path filters: no shift, little else.
    assert difference.mean() < 1
    assert difference.max() <= 16


def test_cmyk_is_converted() -> None:
    photo = prepare_photo(encode(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"), 16)
    assert (photo.decision, photo.reason) == ("converted", "CMYK")
    assert photo.pixels is not None
    assert photo.pixels[8, 8, 0] > 150 > 100 > photo.pixels[8, 8, 2]


def test_a_wide_gamut_is_brought_to_srgb() -> None:
    data = encode(Image.new("RGB", (40, 40), (200, 60, 60)), icc_profile=wide_gamut_profile())
    photo = prepare_photo(data, 32)
    assert (photo.decision, photo.reason) == ("converted", "ICC profile: Wide test gamut to sRGB")
    assert photo.pixels is not None
    wide = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7142]])
    light = np.linalg.inv(srgb) @ wide @ (np.array([200, 60, 60]) / 255) ** 2.2
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert photo.pixels[16, 16].tolist() == pytest.approx(expected.tolist(), abs=2)


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
    assert photo.reason == "palette; animated: first frame"
    assert photo.pixels is not None
    assert tuple(photo.pixels[8, 8]) == (255, 0, 0)


def test_limits_hold_before_decoding() -> None:
    data = encode(random_image(30, 20))
    assert prepare_photo(data, 16, min_side=20, max_pixels=600).decision == "kept"
    assert prepare_photo(data, 16, min_side=21).reason == "too small"
    broken = data[: len(data) // 2]
    photo = prepare_photo(broken, 16, max_pixels=599)
    assert (photo.reason, photo.width, photo.height) == ("over the pixel limit", 30, 20)


def test_columns_of_a_photo() -> None:
    data = encode(random_image(30, 20), "WEBP")
    photo = prepare_photo(data, 16, ".webp")
    assert (photo.format, photo.width, photo.height, photo.mode) == ("WEBP", 30, 20, "RGB")
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    assert photo.pixels is not None
    assert photo.phash == perceptual_hash(Image.fromarray(photo.pixels))


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_packed_file_is_the_array(tmp_path: Path, jobs: int) -> None:
    names = [f"im{number}.png" for number in range(1, 131)]
    for number, name in enumerate(names):
        data = b"broken" if number % 50 == 3 else encode(random_image(12, 10, number))
        (tmp_path / name).write_bytes(data)
    (tmp_path / "portrait.png").write_bytes(encode(random_image(12, 10)))
    names.append("portrait.png")
    refused = {"portrait.png": "wrong name"}
    photos = list(prepare_photos(tmp_path, names, 8, refused, n_jobs=jobs))
    decided = write_images(tmp_path / "images.npy", photos, 8)

    expected = np.stack([photo.pixels for photo in photos if photo.pixels is not None])
    assert len(expected) == 127
    np.save(tmp_path / "expected.npy", expected)
    assert (tmp_path / "images.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert np.array_equal(np.load(tmp_path / "images.npy", mmap_mode="r"), expected)
    assert all(photo.pixels is None for photo in decided)
    assert decided[-1].reason == "wrong name"


def test_backends_give_the_same_photos(tmp_path: Path) -> None:
    names = [f"im{number}.png" for number in range(1, 201)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(random_image(12, 10, number)))

    def packed(backend: str) -> bytes:
        photos = prepare_photos(tmp_path, names, 8, backend=backend, n_jobs=2)
        write_images(tmp_path / f"{backend}.npy", photos, 8)
        return (tmp_path / f"{backend}.npy").read_bytes()

    assert packed("loky") == packed("threading")


@pytest.mark.slow
def test_two_dask_workers_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    names = [f"im{number}.png" for number in range(1, 401)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(random_image(12, 10, number)))
    write_images(tmp_path / "here.npy", prepare_photos(tmp_path, names, 8), 8)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):
            photos = prepare_photos(tmp_path, names, 8, backend="dask")
            write_images(tmp_path / "there.npy", photos, 8)
        done = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert len(done) == 2
    assert min(done.values()) > 0
    assert (tmp_path / "here.npy").read_bytes() == (tmp_path / "there.npy").read_bytes()
