import hashlib
import io
import struct
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import dask
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from phototag.base.parallel import Backend
from phototag.decoding import photos as decoding
from phototag.decoding.formats import FORMATS
from phototag.decoding.perceptual_hash import perceptual_hash
from phototag.decoding.photos import crop_square, prepare_photo
from phototag.verification.packing import prepare_photos, write_images
from tests.decoding.corpus import chunk, png, wide_gamut_profile


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


@pytest.mark.parametrize("kind", ["PNG", "AVIF", "HEIF"])
def test_a_wide_gamut_is_brought_to_srgb(kind: str) -> None:
    options = {} if kind == "PNG" else {"quality": 95}
    image = Image.new("RGB", (40, 40), (200, 60, 60))
    data = encode(image, kind, icc_profile=wide_gamut_profile(), **options)
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


# The transpose that each orientation reverses.
UNDO = {
    code: Image.Transpose(value)
    for code, value in {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.items()
}


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_comes_out_upright(orientation: int) -> None:
    upright = random_image(24, 24)
    stored = upright.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = prepare_photo(encode(stored, "PNG", exif=exif), 24)
    assert (photo.decision, photo.reason) == ("converted", "oriented by EXIF")
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(upright))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_photos_of_phones_come_out_upright(kind: str, orientation: int) -> None:
    """Their container turns the picture; EXIF says the same, and must not turn it again."""
    upright = random_image(6, 4).resize((96, 64), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(UNDO[orientation])
    photo = prepare_photo(encode(stored, kind, exif=exif.tobytes(), quality=95), 32)
    assert photo.format == kind
    assert photo.pixels is not None
    expected = np.asarray(crop_square(upright, 32), np.int16)
    assert np.abs(photo.pixels - expected).mean() < 3


def test_heic_without_its_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(random_image(40, 40), "HEIF")
    assert prepare_photo(data, 32, ".heic").decision == "kept"
    monkeypatch.setattr(decoding, "FORMATS", [name for name in FORMATS if name != "HEIF"])
    for brand in (b"heic", b"mif1"):
        photo = prepare_photo(data[:8] + brand + data[12:], 32, ".heic")
        assert photo.decision == "rejected"
        assert photo.reason == "HEIC needs pillow-heif: run `make setup-heic`"
    assert prepare_photo(b"\0\0\0\x14ftypqt  ", 32).reason.startswith("not an image")


def exif_block(
    value: bytes = b"\6\0\0\0", kind: int = 3, count: int = 1, more: bytes = b""
) -> bytes:
    """Write a little-endian EXIF block with an orientation and, if given, one entry more."""
    entries = struct.pack("<HHL", 0x0112, kind, count) + value + more
    return b"II*\0" + struct.pack("<LH", 8, 1 + len(more) // 12) + entries + bytes(4)


BIG_ENDIAN = b"MM\0*" + struct.pack(">LHHHLHHL", 8, 1, 0x0112, 3, 1, 6, 0, 0)
BEYOND = struct.pack("<HHLL", 0x010F, 2, 1000, 5000)  # a maker's name outside the block
FLOAT = struct.pack("<f", 6.0)
RATIONAL = exif_block(struct.pack("<L", 26), kind=5) + struct.pack("<LL", 6, 1)


@pytest.mark.parametrize(
    ("block", "whole"),
    [
        (exif_block(), True),
        (b"Exif\0\0" + exif_block(), True),
        (BIG_ENDIAN, True),
        (b"Exif\0\0" + BIG_ENDIAN, True),
        (b"II\0*" + exif_block()[4:], True),
        (exif_block(kind=4), True),
        (exif_block(FLOAT, kind=11), True),
        (RATIONAL, True),
        (exif_block(count=2), True),
        (exif_block(b"\0\0\0\0"), True),
        (exif_block(b"\x09\0\0\0"), False),
        (exif_block(b"6\0\0\0", kind=2, count=2), False),
        (exif_block(kind=1), False),
        (exif_block(more=BEYOND), False),
        (exif_block()[:-6], False),
        (exif_block()[:12], False),
        (b"II*\0", False),
        (b"garbage", False),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_orientation_is_what_pillow_reads(block: bytes, whole: bool, kind: str) -> None:
    # Pillow writes no MPO of one picture with a block of our own.
    options = {"save_all": True, "append_images": [random_image(24, 24)]} if kind == "MPO" else {}
    image = random_image(6, 4).resize((24, 24), Image.Resampling.BICUBIC)
    data = encode(image, kind, exif=b"Exif\0\0" + block, **options)
    photo = prepare_photo(data, 24)
    try:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    except Exception:  # what Pillow refuses stays as it is
        upright = Image.open(io.BytesIO(data))
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(upright.convert("RGB")))
    assert ("broken EXIF: ignored" in photo.reason) == (not whole)
    assert ("oriented by EXIF" in photo.reason) == (photo.decision == "converted")


@pytest.mark.parametrize(
    ("value", "compression"),
    [*((value, "raw") for value in range(10)), (6, "tiff_lzw"), (3, "tiff_deflate")],
)
def test_orientation_of_a_tiff_is_what_pillow_reads(value: int, compression: str) -> None:
    image = random_image(24, 24)
    data = encode(image, "TIFF", tiffinfo={0x0112: value}, compression=compression)
    photo = prepare_photo(data, 24)
    upright = Image.open(io.BytesIO(data))
    upright.load()  # which turns it
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(upright))
    expected = "oriented by EXIF" if 2 <= value <= 8 else "broken EXIF: ignored"
    assert photo.reason == (expected if value > 1 else "")


def test_orientation_in_xmp_alone_counts_as_it_does_for_pillow() -> None:
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode())
    for data in (
        encode(random_image(24, 24), "JPEG", xmp=packet),
        encode(random_image(24, 24), "PNG", pnginfo=info),
    ):
        assert prepare_photo(data, 24).reason == "oriented by EXIF"


@pytest.mark.parametrize("key", ["exif", "icc_profile", "transparency", "xmp"])
def test_texts_of_a_png_are_taken_for_nothing_else(key: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, "a text")
    for mode, reason in (("RGB", ""), ("L", "grayscale"), ("P", "palette")):
        photo = prepare_photo(encode(random_image(24, 24).convert(mode), pnginfo=info), 24)
        assert (photo.pixels is not None, photo.reason) == (True, reason)


def gray_png(levels: np.ndarray, bits: int, transparent: int | None) -> bytes:
    """Write a gray PNG of 1, 2, 4, 8 or 16 bits a sample, each given at its own depth."""
    shifts = np.arange(bits - 1, -1, -1)
    rows = np.packbits(levels[:, :, None] >> shifts & 1, axis=None).reshape(len(levels), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    value = [] if transparent is None else [chunk(b"tRNS", struct.pack(">H", transparent))]
    return png(levels.shape[1], levels.shape[0], bits, 0, zlib.compress(lines), *value)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_gray_png_of_any_depth_keeps_its_upper_eight_bits_then_its_transparency(
    bits: int,
) -> None:
    levels = np.random.default_rng(0).integers(0, 2**bits, (16, 16))
    levels[0, :2] = 2**bits // 2, (2**bits // 2) ^ 1  # the second differs in the lowest bit only
    upper = levels >> 8 if bits == 16 else levels * 255 // (2**bits - 1)
    opaque = prepare_photo(gray_png(levels, bits, None), 16)
    assert opaque.pixels is not None
    assert np.array_equal(opaque.pixels[..., 0], upper)
    transparent = int(levels[0, 0])
    photo = prepare_photo(gray_png(levels, bits, transparent), 16)
    assert photo.pixels is not None
    expected = np.where(levels == transparent, 255, upper)
    assert np.array_equal(photo.pixels, np.stack([expected] * 3, axis=2))
    remark = "16-bit; alpha" if bits == 16 else "alpha"
    assert photo.reason == f"{remark}: composited on white"


@pytest.mark.parametrize("bits", [8, 16])
def test_all_bits_of_a_colour_decide_what_is_transparent(bits: int) -> None:
    levels = np.random.default_rng(0).integers(0, 2**bits, (16, 16, 3)).astype(f">u{bits // 8}")
    levels[0, 1] = levels[0, 0]
    levels[0, 2] = levels[0, 0] ^ np.array([0, 0, 1], levels.dtype)
    lines = b"".join(b"\0" + row.tobytes() for row in levels)
    clear = chunk(b"tRNS", struct.pack(">HHH", *levels[0, 0].tolist()))
    photo = prepare_photo(png(16, 16, bits, 2, zlib.compress(lines), clear), 16)
    expected = (levels >> (bits - 8)).astype(np.uint8)
    expected[0, :2] = 255
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, expected)


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (6, 4)])
def test_sixteen_bits_with_alpha_keep_the_upper_eight_of_both(colour: int, channels: int) -> None:
    levels = np.full((16, 16, channels), 0x8000, ">u2")
    levels[..., -1] = 0xFFFF
    levels[:, :8, -1] = 0
    lines = b"".join(b"\0" + row.tobytes() for row in levels)
    photo = prepare_photo(png(16, 16, 16, colour, zlib.compress(lines)), 16)
    assert photo.pixels is not None
    assert (photo.pixels[:, :8] == 255).all()
    assert (photo.pixels[:, 8:] == 0x80).all()


@pytest.mark.parametrize(("order", "white_is_zero"), [("<", False), ("<", True), (">", False)])
def test_a_gray_tiff_of_sixteen_bits(order: str, white_is_zero: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(f"{order}u2")
    entries = {256: 16, 257: 16, 258: 16, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1}
    entries |= {278: 16, 279: levels.nbytes}
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries.items():
        directory += struct.pack(f"{order}HHLL", tag, 4, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8 + levels.nbytes)
    photo = prepare_photo(head + levels.tobytes() + directory + bytes(4), 16)
    expected = (levels >> 8).astype(np.uint8)
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels[..., 0], 255 - expected if white_is_zero else expected)
    assert photo.reason == "16-bit; grayscale"


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


def test_nothing_that_a_zip_holds_ends_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "raw.zip"
    names = [f"im{number}.bmp" for number in range(1, 9)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, encode(random_image(12, 10, number), "BMP"))
        places = [member.header_offset for member in archive.infolist()]
    data = bytearray(path.read_bytes())
    for place in places[::2]:
        data[place + 80] ^= 0xFF  # in the compressed pixels
    path.write_bytes(data)
    for jobs in (1, 2):
        photos = list(prepare_photos(path, [*names, "none.bmp"], 8, n_jobs=jobs))
        assert [photo.decision for photo in photos] == ["rejected", "kept"] * 4 + ["rejected"]
        assert all(photo.reason.startswith("unreadable: ") for photo in photos[:8:2])
        assert photos[-1].reason == "no such file in the zip"


def test_backends_give_the_same_photos(tmp_path: Path) -> None:
    names = [f"im{number}.png" for number in range(1, 201)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(random_image(12, 10, number)))

    def packed(backend: Backend) -> bytes:
        photos = prepare_photos(tmp_path, names, 8, backend=backend, n_jobs=2)
        write_images(tmp_path / f"{backend}.npy", photos, 8)
        return (tmp_path / f"{backend}.npy").read_bytes()

    assert packed("loky") == packed("threading")


def test_decoding_leaves_the_filters_of_warnings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"im{number}.jpg" for number in range(1, 71)]
    data = encode(random_image(12, 10), "JPEG", exif=b"Exif\0\0" + exif_block(more=BEYOND))
    for name in names:
        (tmp_path / name).write_bytes(data)
    state = (warnings.filters, list(warnings.filters), warnings.showwarning)
    seen = []
    open_image = Image.open

    def look(*args: object, **options: object) -> Image.Image:
        # While a thread decodes, all others live with what it has set.
        same = (warnings.filters is state[0], warnings.showwarning is state[2])
        seen.append((threading.current_thread() is threading.main_thread(), *same))
        return open_image(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", look)
    photos = list(prepare_photos(tmp_path, names, 8, backend="threading", n_jobs=2))
    assert {photo.reason for photo in photos} == {"oriented by EXIF; broken EXIF: ignored"}
    assert set(seen) == {(False, True, True)}
    assert (warnings.filters, list(warnings.filters), warnings.showwarning) == state


@pytest.mark.slow
@pytest.mark.soak
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
