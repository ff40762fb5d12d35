"""Corpus of damaged, unusual and hostile files, each with the decision it must get.

`python -m tests.decoding.corpus FOLDER` writes it into a folder.
"""

import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

import phototag.decoding.formats  # noqa: F401 - registers the HEIF codec


@dataclass(frozen=True)
class Case:
    """A file below images/ with its expected decision and kinds of remarks."""

    name: str
    decision: str
    kinds: tuple[str, ...]


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Draw smooth blobs; each seed gives another image."""
    blobs = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes) -> bytes:
    """Write a PNG that Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142))


def write_profile(
    gamma: float = 2.2,
    primaries: tuple[tuple[float, float, float], ...] = DISPLAY_P3,
    name: str = "Wide test gamut",
) -> bytes:
    """Write a small ICC profile of RGB colours; the primaries are adapted to D50."""

    def s15(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = name.encode() + b"\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    xyz = {
        b"wtpt": (0.9642, 1.0, 0.8249),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)),
    }
    tags = {b"desc": desc} | {key: b"XYZ " + bytes(4) + s15(*v) for key, v in xyz.items()}
    for key in (b"rTRC", b"gTRC", b"bTRC"):
        tags[key] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        table += key + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ",
                         b"XYZ ")  # fmt: skip
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += s15(0.9642, 1.0, 0.8249) + bytes(48)
    return header[:128] + table + body


def oriented(code: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = code
    return exif


def tile_tiff(side: int) -> bytes:
    """Write a TIFF of 10 x 10 pixels in one tile of `side` x `side` pixels."""
    tags = {322: side, 323: side, 324: 8, 325: 100}
    return tiff(10, 10, zlib.compress(bytes(3000)), {258: 8, 259: 8, 262: 1, 277: 1} | tags)


def tiff(
    width: int,
    height: int,
    data: bytes,
    tags: dict[int, int],
    order: str = "<",
    text: dict[int, bytes] | None = None,
) -> bytes:
    """Write a TIFF that Pillow would not write; `text` has tags with 4 characters as value."""
    numbers = {256: width, 257: height, 259: 1, 273: 8, 278: height, 279: len(data)} | tags
    entries = {tag: struct.pack(order + "HHII", tag, 4, 1, n) for tag, n in numbers.items()}
    for tag, value in (text or {}).items():
        entries[tag] = struct.pack(order + "HHI", tag, 2, 4) + value
    data += bytes(len(data) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    directory = b"".join(entries[tag] for tag in sorted(entries))
    return head + data + struct.pack(order + "H", len(entries)) + directory + bytes(4)


def patch_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """Write another size into the frame header."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def make_files() -> list[tuple[str, bytes, str, tuple[str, ...]]]:
    """Return name, content, decision and kinds of remarks of all regular files."""
    files: list[tuple[str, bytes, str, tuple[str, ...]]] = []
    number = 100

    def add(data: bytes, decision: str, *kinds: str, ext: str = "jpg", name: str = "") -> None:
        nonlocal number
        number += 1
        files.append((name or f"im{number}.{ext}", data, decision, kinds))

    def new(**size: int) -> Image.Image:
        return picture(number, **size)

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = write_profile()
    rgba = new().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    frames = [picture(900 + index) for index in range(3)]

    # Kept without a remark.
    add(encode(new()), "kept")
    add(encode(new(), progressive=True), "kept")
    add(encode(new()) + b"trailing bytes", "kept")
    add(encode(new(), "PNG"), "kept", ext="png")
    add(encode(new(), "WEBP"), "kept", ext="webp")
    add(encode(new(), "BMP"), "kept", ext="bmp")
    add(encode(new(), "TIFF"), "kept", ext="tif")
    add(encode(new(), "TIFF", compression="tiff_lzw"), "kept", ext="TIFF")
    # A BMP with 16 bits per pixel has fewer than 8 bits per sample.
    header = b"BM" + struct.pack("<6I2H6I3I", 2114, 0, 66, 40, 32, 32, 1, 16, 3, 2048, 0, 0, 0, 0,
                                 0xF800, 0x7E0, 0x1F)  # fmt: skip
    add(header + bytes(range(256)) * 8, "kept", ext="bmp")
    add(encode(new(height=3000)), "kept")
    add(encode(new(), icc_profile=srgb), "kept")
    add(encode(new()), "kept", name="été/im41.jpg")
    add(encode(new()), "kept", name="猫/im42.jpeg")
    add(encode(new()), "kept", name="a b,'\"c\n/im43.JPG")
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 * 2**20), 9))
    good = encode(new(), "PNG")
    add(good[:33] + bomb + good[33:], "kept", ext="png")
    # Kept, with a remark.
    add(encode(new(), "PNG"), "kept")
    add(encode(new()), "kept", ext="png")
    add(encode(new()), "kept", ext="txt")
    add(encode(new(), exif=oriented(9)), "kept")
    add(encode(new(), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff broken"), "kept")
    add(encode(new(), exif=b"Exif\0\0garbage"), "kept")
    twice = b"Exif\0\0" + oriented(6).tobytes()
    add(encode(new(), exif=twice), "converted", "oriented by EXIF")
    add(encode(new(), icc_profile=b"garbage" * 40), "kept")
    add(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "kept",
        "animated", ext="webp")  # fmt: skip
    add(encode(frames[1], "PNG", save_all=True, append_images=frames[::2]), "kept",
        "animated", ext="png")  # fmt: skip
    add(encode(frames[2], "TIFF", save_all=True, append_images=frames[:2]), "kept",
        "animated", ext="tiff")  # fmt: skip
    add(encode(new(), "MPO", save_all=True, append_images=frames[1:]), "kept", "animated")
    # Tile width and colour profile are text, and the only image is a reduced version of another.
    text, tags = {322: b"abc\0", 34675: b"abc\0"}, {254: 1, 258: 8, 262: 1, 277: 1}
    add(tiff(64, 48, bytes(range(256)) * 12, tags, text=text), "converted", "grayscale", "preview",
        ext="tif")  # fmt: skip
    for colour in ("black", "white", "teal"):
        add(encode(Image.new("RGB", (64, 48), colour)), "kept", "no contrast")
    # Converted.
    add(encode(new().convert("L")), "converted", "grayscale")
    add(encode(new().convert("1"), "PNG"), "converted", "grayscale", ext="png")
    add(encode(new().convert("L"), icc_profile=wide), "converted", "grayscale")
    add(encode(new().convert("P"), "PNG"), "converted", "palette", ext="png")
    add(encode(new().convert("P"), "BMP"), "converted", "palette", ext="bmp")
    add(encode(new().convert("P"), "GIF"), "converted", "palette", ext="gif")
    add(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "converted",
        "palette", "animated", ext="gif")  # fmt: skip
    add(encode(new().convert("P"), "PNG", transparency=3), "converted", "alpha", ext="png")
    add(encode(rgba, "PNG"), "converted", "alpha", ext="png")
    add(encode(rgba, "WEBP"), "converted", "alpha", ext="webp")
    transparent = new().convert("RGBA")
    transparent.putalpha(0)
    add(encode(transparent, "PNG"), "converted", "alpha", ext="png")
    add(encode(rgba.convert("LA"), "PNG"), "converted", "alpha", ext="png")
    add(encode(new(), "PNG", transparency=(1, 2, 3)), "converted", "alpha", ext="png")
    deep = np.random.default_rng(7).integers(0, 65536, (40, 40, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    add(png(40, 40, 16, 2, zlib.compress(rows)), "converted", "16-bit", ext="png")
    rows = b"".join(b"\0" + (row >> 4).astype(">u2").tobytes() for row in deep)
    add(png(40, 40, 16, 2, zlib.compress(rows)), "rejected", "unreadable", ext="png")
    gray = Image.fromarray(deep[..., 0].astype(np.uint16))
    add(encode(gray, "PNG"), "converted", "16-bit", "grayscale", ext="png")
    add(encode(gray, "PNG", transparency=4711), "converted", "16-bit", "grayscale", ext="png")
    add(encode(gray, "TIFF"), "converted", "16-bit", "grayscale", ext="tif")
    add(encode(new().convert("CMYK")), "converted", "CMYK")
    add(encode(new().convert("CMYK"), "TIFF"), "converted", "CMYK", ext="tif")
    for code in range(2, 9):
        add(encode(new(), exif=oriented(code)), "converted", "oriented by EXIF")
    add(encode(new(), "PNG", exif=oriented(6)), "converted", "oriented by EXIF", ext="png")
    add(encode(new(), "WEBP", exif=oriented(6)), "converted", "oriented by EXIF", ext="webp")
    add(encode(new(), "TIFF", tiffinfo={0x0112: 6}), "converted", "oriented by EXIF", ext="tif")
    add(encode(new(), icc_profile=wide), "converted", "ICC profile")
    add(encode(new(), "PNG", icc_profile=wide), "converted", "ICC profile", ext="png")
    # Formats of phones.
    add(encode(new(), "HEIF"), "kept", ext="heic")
    add(encode(new(), "HEIF"), "kept", ext="HEIF")
    add(encode(new(), "HEIF"), "kept")
    add(encode(new(), "HEIF", exif=oriented(6).tobytes()), "kept", ext="heic")
    add(encode(new(), "HEIF", icc_profile=wide), "converted", "ICC profile", ext="heic")
    add(encode(rgba, "HEIF"), "converted", "alpha", ext="heic")
    add(encode(new().convert("L"), "HEIF"), "converted", "grayscale", ext="heic")
    add(encode(new(), "AVIF"), "kept", ext="avif")
    add(encode(new(), "AVIF", exif=oriented(6)), "converted", "oriented by EXIF", ext="avif")
    add(encode(new(), "AVIF", icc_profile=wide), "converted", "ICC profile", ext="avif")
    add(encode(rgba, "AVIF"), "converted", "alpha", ext="avif")
    add(encode(frames[0], "AVIF", save_all=True, append_images=frames[1:]), "kept",
        "animated", ext="avif")  # fmt: skip
    add(encode(new(), "HEIF")[:40], "rejected", "not an image", ext="heic")
    # Not decodable.
    add(b"", "rejected", "zero bytes")
    for data in (b"no picture", b"<html></html>", b"%PDF-1.7\n", b"<svg xmlns=''/>", b"\xff\xd8",
                 bytes(4096), b"8BPS\0\1" + bytes(60), encode(new(), "ICO"),
                 encode(new(), "PPM")):  # fmt: skip
        add(data, "rejected", "not an image")
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"):
        data = encode(picture(number, 200, 200), kind)
        # The messages of these decoders do not name the cause.
        why = {"WEBP": "unreadable", "HEIF": "unreadable", "AVIF": "not an image"}
        ext = kind.lower().replace("jpeg", "jpg")
        add(data[: len(data) // 2], "rejected", why.get(kind, "truncated"), ext=ext)
    good = encode(new(), "PNG")
    middle = good.index(b"IDAT") + 30
    add(good[:middle] + b"\0damaged\0" + good[middle + 9 :], "rejected", "unreadable", ext="png")
    add(png(64, 64, 8, 2, b"no zlib stream at all"), "rejected", "unreadable", ext="png")
    for mode, dtype in (("F", np.float32), ("I", np.int32)):
        values = Image.fromarray(np.full((40, 40), 7, dtype))
        assert values.mode == mode
        add(encode(values, "TIFF"), "rejected", "unreadable", ext="tif")
    # Too large or too small.
    bits = zlib.compress(bytes(1000), 9)
    add(png(30_000, 30_000, 1, 0, bits), "rejected", "over the pixel limit", ext="png")
    add(png(12_000, 9_000, 8, 2, bits), "rejected", "over the pixel limit", ext="png")
    add(patch_jpeg_size(encode(new()), 65_000, 65_000), "rejected", "over the pixel limit")
    add(b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(3) + b"," + bytes(4)
        + struct.pack("<HH", 65_535, 65_535) + bytes(9), "rejected", "over the pixel limit",
        ext="gif")  # fmt: skip
    add(tile_tiff(40_000), "rejected", "over the pixel limit", ext="tif")
    flat = encode(picture(1), "BMP")
    add(flat[:18] + struct.pack("<ii", 100_000, 100_000) + flat[26:], "rejected",
        "over the pixel limit", ext="bmp")  # fmt: skip
    add(encode(new(width=10, height=8)), "rejected", "too small")
    add(encode(new(width=1, height=1), "PNG"), "rejected", "too small", ext="png")
    add(encode(new(width=4000, height=20)), "rejected", "too small")
    # Names.
    for name in ("photo.jpg", "im.jpg", "im-5.jpg", "im5.5.jpg", "im\uff15.jpg", "im\u0665.jpg",
                 "im7 copy.jpg", "im8", "IM9.jpg", f"im{'9' * 30}.jpg", "猫.jpg", "im\n8.jpg",
                 "im\u202e8.jpg", os.fsdecode(b"im\xff8.jpg")):  # fmt: skip
        add(encode(new()), "rejected", "wrong name", name=name)
    for name in ("im50.jpg", "im050.png", "more/im50.jpg"):
        add(encode(new()), "rejected", "same number", name=name)
    return files


# System files are ignored: the manifest has no rows for them.
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "._im101.jpg", "@eaDir/im102.jpg", "im103.xmp", "Icon\r")


def make_corpus(folder: Path) -> list[Case]:
    """Write the corpus to folder/images, with annotations next to it."""
    images = folder / "images"
    cases = []
    for name, data, decision, kinds in make_files():
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        cases.append(Case(name, decision, kinds))
    for name in SYSTEM_FILES:
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"\0\1")
    outside = folder.with_name("outside.jpg")
    outside.write_bytes(encode(picture(0)))
    (folder.with_name("elsewhere")).mkdir(exist_ok=True)

    links: dict[str, tuple[str | Path, str, str]] = {
        "im60.jpg": ("im101.jpg", "kept", ""),
        "im61.jpg": (outside, "rejected", "link to a file"),
        "im62.jpg": ("/etc/hostname", "rejected", "link to a file"),
        "im63.jpg": ("gone.jpg", "rejected", "broken link"),
        "im64.jpg": ("im64.jpg", "rejected", "broken link"),
        "im65.jpg": ("été", "rejected", "link to a folder"),
        "im66.jpg": (folder.with_name("elsewhere"), "rejected", "link to a file"),
    }
    for name, (target, decision, kind) in links.items():
        (images / name).symlink_to(target)
        cases.append(Case(name, decision, (kind,) if kind else ()))
    os.mkfifo(images / "im67.jpg")
    cases.append(Case("im67.jpg", "rejected", ("not a regular file",)))
    (folder / "annotations").mkdir()
    (folder / "annotations/cat.txt").write_bytes(b"101\n102\n")
    return cases


if __name__ == "__main__":
    for case in make_corpus(Path(sys.argv[1])):
        print(f"{case.decision:<10}{case.name!r:<30}{', '.join(case.kinds)}")
