"""Decoding of single photos."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from phototag.decoding import formats, photos
from phototag.decoding.formats import FORMATS
from phototag.decoding.perceptual_hash import perceptual_hash
from phototag.decoding.photos import crop_square, prepare_photo
from tests.decoding.corpus import DISPLAY_P3, SRGB, chunk, png, tiff, write_profile


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
    # Pillow rounds between its two passes, and takes them in an order that depends on the box.
    difference = np.abs(np.asarray(crop_square(image, 32)) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.3


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (2048, 1536), (1021, 767), (130, 999)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_decoded_at_a_fraction_equals_full_decoding(
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
    # Decoding at a fraction averages blocks, full decoding filters: small differences, no shift.
    assert difference.mean() < 1
    assert difference.max() <= 16


def test_cmyk_is_converted_to_rgb() -> None:
    photo = prepare_photo(encode(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"), 16)
    assert photo.decision == "converted"
    assert photo.reason.startswith("CMYK; ")
    assert photo.pixels is not None
    assert photo.pixels[8, 8, 0] > 150 > 100 > photo.pixels[8, 8, 2]


@pytest.mark.parametrize("kind", ["PNG", "AVIF", "HEIF"])
def test_wide_gamut_profile_is_converted_to_srgb(kind: str) -> None:
    options = {} if kind == "PNG" else {"quality": 95}
    image = Image.new("RGB", (40, 40), (200, 60, 60))
    photo = prepare_photo(encode(image, kind, icc_profile=write_profile(), **options), 32)
    assert photo.reason.startswith("ICC profile: converted to sRGB; ")
    assert photo.pixels is not None
    light = np.linalg.inv(np.transpose(SRGB)) @ np.transpose(DISPLAY_P3)
    light = light @ (np.array([200, 60, 60]) / 255) ** 2.2
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert photo.pixels[16, 16].tolist() == pytest.approx(expected.tolist(), abs=2)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# A profile with a slightly different exponent, and one in which red and green are exchanged.
NEAR_PROFILE = PROFILE.replace(b"\0\2ff", b"\0\2pf")
SWAPPED_PROFILE = PROFILE.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?X", b"gX")
GRAY_PROFILE = write_profile().replace(b"mntrRGB ", b"mntrGRAY").replace(b"rTRC", b"kTRC")


@pytest.mark.parametrize(
    ("profile", "converted_mode"),
    [
        (PROFILE, ""),
        (PROFILE.replace("sRGB".encode("utf-16-be"), "Mine".encode("utf-16-be")), ""),
        (NEAR_PROFILE, ""),
        (SWAPPED_PROFILE, "RGB"),
        (write_profile(1.0, SRGB, "sRGB linear"), "RGB"),
        (write_profile(1.8, SRGB, "sRGB IEC61966-2.1"), "RGB"),
        (write_profile(2.2, SRGB, "sRGB"), "RGB"),
        (write_profile(2.2, DISPLAY_P3, "sRGB"), "RGB"),
        (write_profile()[:300], ""),
        (GRAY_PROFILE, "L"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_effect_of_a_profile_decides_about_its_conversion(
    profile: bytes, converted_mode: str, mode: str
) -> None:
    image = random_image(6, 4).resize((32, 32), Image.Resampling.BICUBIC).convert(mode)
    photo = prepare_photo(encode(image, "PNG", icc_profile=profile), 32)
    expected = image.convert("RGB")
    if mode == converted_mode:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        expected = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or image
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(expected))
    assert ("ICC profile" in photo.reason) == (expected.tobytes() != image.convert("RGB").tobytes())


# EXIF orientation -> transpose that undoes it.
UNDO = {
    code: Image.Transpose(value)
    for code, value in {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.items()
}


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_exif_orientation_is_applied(orientation: int) -> None:
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
def test_orientation_of_phone_formats_is_applied_once(kind: str, orientation: int) -> None:
    """The container rotates the image already, so EXIF must not rotate it again."""
    upright = random_image(6, 4).resize((96, 64), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(UNDO[orientation])
    photo = prepare_photo(encode(stored, kind, exif=exif.tobytes(), quality=95), 32)
    assert photo.format == kind
    assert photo.pixels is not None
    expected = np.asarray(crop_square(upright, 32), np.int16)
    assert np.abs(photo.pixels - expected).mean() < 3


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("HEIF", "HEIC requires pillow-heif: run `make setup-heic`"),
        ("AVIF", "this build of Pillow lacks AVIF: install Pillow with pip"),
    ],
)
def test_missing_decoder_is_named(
    kind: str, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = encode(random_image(40, 40), kind)
    assert prepare_photo(data, 32).decision == "kept"
    installed = [name for name in FORMATS if name != kind]
    monkeypatch.setattr(photos, "FORMATS", installed)
    monkeypatch.setattr(formats, "FORMATS", installed)
    monkeypatch.setattr("PIL.features.check", lambda name: name != kind.lower())
    assert prepare_photo(data, 32).reason == f"decoder missing: {missing}"
    (tmp_path / "photo").write_bytes(data)
    assert formats.split_photos(tmp_path, ["photo"]) == (["photo"], [])
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
    assert prepare_photo(video, 32).reason.startswith(
        "not an image that can be read: expected one of JPEG, "
    )


def test_photos_are_found_by_extension_or_first_bytes(tmp_path: Path) -> None:
    image = random_image(16, 16)
    starts = {kind: encode(image, kind)[:60] for kind in formats.SIGNATURES}
    assert {kind: formats.find_format(data) for kind, data in starts.items()} == {
        kind: kind for kind in starts
    }
    others = {
        "car.txt": b"BMW and other cars",
        "movie": b"\0\0\0\x18ftypavc1\0\0\0\0avc1isom",
        "song": b"RIFF\x24\0\0\0WAVEfmt ",
        "none": b"",
    }
    for name, data in {**starts, **others, "none.jpg": b""}.items():
        (tmp_path / name).write_bytes(data)
    names = sorted([*starts, *others, "none.jpg"])
    found, rest = formats.split_photos(tmp_path, names)
    assert (found, rest) == (sorted([*starts, "none.jpg"]), sorted(others))


def exif_block(value: bytes = b"\6\0\0\0", kind: int = 3, count: int = 1) -> bytes:
    """Write a little-endian EXIF block that holds an orientation."""
    entry = struct.pack("<HHL", 0x0112, kind, count) + value
    return b"II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4)


BIG_ENDIAN = b"MM\0*" + struct.pack(">LHHHLHHL", 8, 1, 0x0112, 3, 1, 6, 0, 0)
FLOAT = struct.pack("<f", 6.0)
RATIONAL = exif_block(struct.pack("<L", 26), kind=5) + struct.pack("<LL", 6, 1)


@pytest.mark.parametrize(
    "block",
    [
        exif_block(),
        b"Exif\0\0" + exif_block(),
        BIG_ENDIAN,
        b"II\0*" + exif_block()[4:],
        exif_block(FLOAT, kind=11),
        RATIONAL,
        exif_block(count=2),
        exif_block(b"\0\0\0\0"),
        exif_block(b"\x09\0\0\0"),
        exif_block(b"6\0\0\0", kind=2, count=2),
        exif_block(kind=1),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_orientation_equals_pillow_exif_transpose(block: bytes, kind: str) -> None:
    # Pillow accepts a custom EXIF block only for an MPO of several images.
    options = {"save_all": True, "append_images": [random_image(24, 24)]} if kind == "MPO" else {}
    image = random_image(6, 4).resize((24, 24), Image.Resampling.BICUBIC)
    data = encode(image, kind, exif=b"Exif\0\0" + block, **options)
    photo = prepare_photo(data, 24)
    try:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    except Exception:  # Pillow cannot read the orientation, so it is not applied
        upright = Image.open(io.BytesIO(data))
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(upright.convert("RGB")))
    assert ("oriented by EXIF" in photo.reason) == (photo.decision == "converted")


@pytest.mark.parametrize(
    ("value", "compression"),
    [*((value, "raw") for value in range(10)), (6, "tiff_lzw"), (3, "tiff_deflate")],
)
def test_orientation_of_a_tiff_equals_pillow(value: int, compression: str) -> None:
    image = random_image(24, 24)
    data = encode(image, "TIFF", tiffinfo={0x0112: value}, compression=compression)
    photo = prepare_photo(data, 24)
    upright = Image.open(io.BytesIO(data))
    upright.load()  # rotates it
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(upright))
    assert photo.reason == ("oriented by EXIF" if 2 <= value <= 8 else "")


def png_bytes(levels: np.ndarray, bits: int, colour: int, *chunks: bytes) -> bytes:
    """Write a PNG of 8 or 16 bits per sample and a colour type."""
    lines = b"".join(b"\0" + row.tobytes() for row in levels.astype(f">u{bits // 8}"))
    return png(levels.shape[1], levels.shape[0], bits, colour, zlib.compress(lines), *chunks)


ONLY = (
    "unreadable: the largest 16-bit sample uses only {} bits: save the photo with 8 bits per sample"
)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize(
    ("stored", "bits"), [(8, 8), *((16, bits) for bits in (6, 8, 10, 11, 12, 14, 15, 16))]
)
def test_png_of_any_colour_type_keeps_the_upper_8_of_its_bits_or_is_refused(
    stored: int, bits: int, colour: int, channels: int
) -> None:
    levels = np.random.default_rng(0).integers(0, 2**bits, (16, 16, channels))
    if has_alpha := channels in (2, 4):
        levels[..., -1] = 2**stored - 1 if bits in (10, 15) else 2**bits - 1
        levels[:, :8, -1] = 0
    photo = prepare_photo(png_bytes(levels, stored, colour), 16)
    if bits < stored - 1 and channels > 1:
        assert photo.reason == ONLY.format(max(8, bits))
        return
    bits = max(8, bits + bits % 2)  # cameras use an even number of bits
    expected = np.broadcast_to(
        levels[..., : channels - has_alpha] >> (bits - 8), (16, 16, 3)
    ).copy()
    if has_alpha:
        expected[:, :8] = 255
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, expected)
    assert ("16-bit" in photo.reason) == (stored == 16)
    assert (f"only {bits} bits are used" in photo.reason) == (bits < stored)
    assert ("alpha: composited on white" in photo.reason) == has_alpha


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_channel_of_zeros_is_ignored(mode: str) -> None:
    image = random_image(16, 16).convert(mode)
    image.putalpha(0)
    photo = prepare_photo(encode(image, "TIFF"), 16)
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))
    assert photo.reason == "alpha: ignored because it is 0 everywhere"


def test_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    levels[0, 1] = levels[0, 0]
    clear = chunk(b"tRNS", struct.pack(">HHH", *levels[0, 0].tolist()))
    photo = prepare_photo(png_bytes(levels, 8, 2, clear), 16)
    levels[0, :2] = 255
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, levels)


@pytest.mark.parametrize(
    ("order", "photometric"), [("<", 0), ("<", 1), (">", 1), ("<", 2), (">", 2), ("<", 5)]
)
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_16_bit_tiff_keeps_the_upper_8_of_its_bits_or_is_refused(
    order: str, photometric: int, compression: int, bits: int
) -> None:
    channels, mode = {2: (3, "RGB"), 5: (4, "CMYK")}.get(photometric, (1, "L"))
    levels = np.random.default_rng(0).integers(0, 2**bits, (16, 16, channels))
    content = levels.astype(f"{order}u2").tobytes()
    tags = {258: 16, 259: compression, 262: photometric, 277: channels}
    data = tiff(16, 16, content if compression == 1 else zlib.compress(content), tags, order)
    photo = prepare_photo(data, 16)
    if bits < 16 and channels > 1:
        assert photo.reason == ONLY.format(bits)
        return
    upper = (levels >> (bits - 8)).astype(np.uint8)
    expected = Image.frombytes(
        mode, (16, 16), (255 - upper if photometric == 0 else upper).tobytes()
    )
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(expected.convert("RGB")))
    assert photo.reason.startswith("16-bit" if bits == 16 else f"16-bit: only {bits} bits are used")


@pytest.mark.parametrize(
    "tags",
    [
        {258: 8, 262: 1, 339: 2},
        {258: 16, 262: 1, 339: 2},
        {258: 32, 262: 1, 339: 3},
        {258: 32, 262: 1},
        {258: 16, 262: 2, 277: 3, 284: 2},
    ],
)
def test_samples_of_an_unknown_range_are_refused(tags: dict[int, int]) -> None:
    photo = prepare_photo(tiff(16, 16, bytes(range(256)) * 6, {277: 1} | tags), 16)
    assert photo.reason == (
        "unreadable: signed, floating point, 32-bit or planar 16-bit samples are not supported: "
        "save the photo with 8 bits per sample"
    )


DAMAGED_CHUNK = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?"
LARGE = zlib.compress(bytes(2**21))


@pytest.mark.parametrize(
    "chunks",
    [
        DAMAGED_CHUNK,
        chunk(b"iCCP", b"profile\0\0" + LARGE),
        chunk(b"iCCP", b""),
        chunk(b"zTXt", b"Comment\0\0" + LARGE),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20))) * 65,
        chunk(b"pHYs", b""),
        chunk(b"gAMA", b""),
    ],
)
@pytest.mark.parametrize("place", [b"IDAT", b"IEND"])
def test_metadata_of_a_png_does_not_affect_its_pixels(chunks: bytes, place: bytes) -> None:
    image = random_image(16, 16)
    data = encode(image, exif=b"Exif\0\0" + exif_block())
    start = data.index(place) - 4
    photo = prepare_photo(data[:start] + chunks + data[start:], 16)
    assert photo.pixels is not None
    assert np.array_equal(photo.pixels, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))
    assert photo.sha256 == hashlib.sha256(data[:start] + chunks + data[start:]).hexdigest()


def test_pixels_of_a_png_are_not_repaired() -> None:
    data = encode(random_image(16, 16))
    assert prepare_photo(data[: len(data) // 2], 16).decision == "rejected"


def test_limits_are_checked_before_decoding() -> None:
    data = encode(random_image(30, 20))
    assert prepare_photo(data, 16, min_side=20, max_pixels=600).decision == "kept"
    assert prepare_photo(data, 16, min_side=21).reason == "too small"
    broken = data[: len(data) // 2]
    photo = prepare_photo(broken, 16, max_pixels=599)
    assert (photo.reason, photo.width, photo.height) == ("over the pixel limit", 30, 20)


def test_photo_holds_format_size_mode_and_hashes() -> None:
    data = encode(random_image(30, 20), "WEBP")
    photo = prepare_photo(data, 16)
    assert (photo.format, photo.width, photo.height, photo.mode) == ("WEBP", 30, 20, "RGB")
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    assert photo.pixels is not None
    assert photo.phash == perceptual_hash(Image.fromarray(photo.pixels))
