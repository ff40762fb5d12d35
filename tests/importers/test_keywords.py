import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from phototag.base.errors import InputError
from phototag.importers import keywords, xmp
from phototag.importers.keywords import Keywords
from phototag.importers.xmp import parse_packet
from tests.importers.imports import paint, run_import, write
from tests.importers.sidecars import APPLE, BROKEN, DC, PROGRAMS, RDF, list_keywords


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(["a.png", "b.png", "album/c.png"]):
        paint(tmp_path / "in" / name, value)
    return tmp_path / "in"


@pytest.mark.parametrize("name", PROGRAMS)
def test_sidecars_of_programs_are_read(name: str) -> None:
    found = Keywords()
    found.add(parse_packet(PROGRAMS[name]))
    assert found.human == {"Zoo", "animals", "cat"}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sidecar_is_reported_and_labels_are_unknown(
    folder: Path, tmp_path: Path, name: str
) -> None:
    data, message = BROKEN[name]
    (folder / "a.png.xmp").write_bytes(data)
    write(folder / "b.xmp", list_keywords("cat"))
    found = run_import(folder, tmp_path / "raw", missing="absent")
    (note,) = [note for note in found.summary.notes if "a.png.xmp" in note]
    assert note.startswith("a.png.xmp: ")
    assert message in note
    assert note.endswith("; other labels are unknown")
    assert note.isprintable()
    assert found.unknown == {"a.png": "cat"}


def test_messages_about_many_broken_sidecars_are_limited(folder: Path, tmp_path: Path) -> None:
    for number in range(13):
        paint(folder / f"{number}.png", 100 + number)
        write(folder / f"{number}.xmp", "")
    write(folder / "a.xmp", list_keywords("cat"))
    notes = run_import(folder, tmp_path / "raw", missing="absent").summary.notes
    assert notes[9].startswith("6.xmp: not XML")
    assert notes[10] == "files with keywords that could not be read, besides these: 3"


def test_keywords_under_the_parent_phototag_are_not_labels() -> None:
    """Programs may copy predicted keywords into photos without the list of written keywords."""
    found = Keywords(flat={"phototag", "cat", "dog"}, paths={("phototag", "cat"), ("my", "dog")})
    assert found.human == {"my", "dog"}


def test_huge_sidecar_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmp, "MAX_BYTES", len(APPLE.encode()) - 1)
    with pytest.raises(InputError, match="larger than"):
        parse_packet(APPLE.encode())


def test_sidecars_in_both_naming_habits_are_read(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.png.xmp", list_keywords("cat"))
    write(folder / "a.xmp", list_keywords("dog"))
    write(folder / "album/c.XMP", list_keywords("tree"))
    write(folder / "album/b.png.xmp", list_keywords("another folder"))
    found = run_import(folder, tmp_path / "raw", missing="absent")
    assert found.summary.description == "keywords: 3 photos, 2 of them with keywords"
    assert found.carried == {"a.png": "cat dog", "b.png": "", "album/c.png": "tree"}
    assert found.summary.notes == [
        "keywords of fewer than 5 photos (skip them with --min-photos): 3",
    ]


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        ("absent", {}),
        ("unknown", {"a.png": "dog", "b.png": "cat", "album/c.png": "cat dog"}),
        ("absent-if-tagged", {"album/c.png": "cat dog"}),
    ],
)
def test_user_decides_what_a_missing_keyword_means(
    folder: Path, tmp_path: Path, missing: str, unknown: dict[str, str]
) -> None:
    write(folder / "a.xmp", list_keywords("cat"))
    write(folder / "b.xmp", list_keywords("dog"))
    with pytest.raises(InputError, match=r"pass --missing absent .*, --missing unknown, or --miss"):
        run_import(folder, tmp_path / "raw")
    assert run_import(folder, tmp_path / "raw", missing=missing).unknown == unknown


def test_rare_keywords_are_skipped(folder: Path, tmp_path: Path) -> None:
    for name, labels in (("a", ["cat", "dog"]), ("b", ["cat"]), ("album/c", ["bird"])):
        write(folder / f"{name}.xmp", list_keywords(*labels))
    found = run_import(folder, tmp_path / "raw", missing="absent-if-tagged", min_photos=2)
    assert found.carried == {"a.png": "cat", "b.png": "cat", "album/c.png": ""}
    assert found.unknown == {}
    assert found.summary.notes == [
        "keywords of fewer than 2 photos, skipped: 2",
    ]
    known = frozenset({"dog", "tree"})
    options = {"missing": "absent", "min_photos": 9, "known_labels": known}
    found = run_import(folder, tmp_path / "added", **options)
    assert found.carried == {"a.png": "dog", "b.png": "", "album/c.png": ""}
    assert found.summary.notes == ["keywords of fewer than 9 photos, skipped: 2"]


def embed(path: Path, **metadata: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, path.suffix[1:].upper(), **metadata)
    return file.getvalue()


def png_info(text: str) -> PngInfo:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text)
    return info


def write_iptc(*texts: bytes) -> bytes:
    """Return a JPEG with IPTC keywords in an image resource block of Photoshop."""
    records = b"".join(b"\x1c\x02\x19" + struct.pack(">H", len(text)) + text for text in texts)
    records += b"\0" * (len(records) % 2)
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records
    data = embed(Path("a.jpeg"))
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:]


def write_exif(text: str) -> bytes:
    exif = Image.Exif()
    exif[0x9C9E] = f"{text}\0".encode("utf-16-le")
    return embed(Path("a.jpeg"), exif=exif)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *((f"a.{suffix}", embed(Path(f"a.{suffix}"), xmp=list_keywords("Katze", "rød").encode()))
          for suffix in ("jpeg", "webp", "avif", "mpo")),
        ("a.tiff", embed(Path("a.tiff"), tiffinfo={700: list_keywords("Katze", "rød").encode()})),
        ("a.png", embed(Path("a.png"), pnginfo=png_info(list_keywords("Katze", "rød")))),
        ("iptc.jpg", write_iptc(b"Katze", "rød".encode())),
        ("latin-1.jpg", write_iptc(b"Katze", b"", b"r\xf8d")),
        ("windows.jpg", write_exif("Katze; rød")),
    ],
)  # fmt: skip
def test_keywords_in_photos_are_read(tmp_path: Path, name: str, data: bytes) -> None:
    write(tmp_path / "in/README.md", "")
    (tmp_path / "in" / name).write_bytes(data)
    found = run_import(tmp_path / "in", tmp_path / "raw", missing="absent")
    assert found.carried == {name: "Katze rød"}


def test_damaged_metadata_and_photos_have_no_keywords() -> None:
    assert keywords.read_embedded(b"no photo") == Keywords()
    assert keywords.read_embedded(Path("gone.jpg")) == Keywords()
    broken = keywords.read_embedded(embed(Path("a.jpeg"), xmp=b"<x"))
    assert (broken.human, len(broken.problems)) == (set(), 1)


def test_keywords_that_cannot_be_labels_are_skipped(folder: Path, tmp_path: Path) -> None:
    odd = ["AC/DC", "a:b", "a\tb", "x" * 500, " ", "file", "|", "\u200b", "&#133;"]
    good = ["Paris, France", "a &amp; b", " été ", "e\u0301te\u0301", "猫", "rouge|clair", "0"]
    write(folder / "a.xmp", list_keywords(*odd, *good))
    found = run_import(folder, tmp_path / "raw", missing="absent")
    assert sorted(found.summary.labels) == [
        "0", "Paris, France", "a & b", "clair", "rouge", "été", "猫",
    ]  # fmt: skip
    assert found.summary.notes == [
        "keywords that cannot be labels, skipped: 5, such as 'AC/DC'",
        "keywords of fewer than 5 photos (skip them with --min-photos): 7",
    ]


def test_simple_values_are_read_as_keywords() -> None:
    for subject in (
        f"<rdf:Description {DC} dc:subject='cat'/>",
        f"<rdf:Description {DC}><dc:subject>\n cat </dc:subject></rdf:Description>",
    ):
        found = Keywords()
        found.add(parse_packet(f"<rdf:RDF {RDF}>{subject}</rdf:RDF>".encode()))
        assert found.human == {"cat"}


def test_zip_with_sidecars_is_read(folder: Path, tmp_path: Path) -> None:
    write(folder / "album/c.png.xmp", list_keywords("cat"))
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    found = run_import(tmp_path / "in.zip", tmp_path / "raw", missing="unknown")
    assert found.summary.count_labels() == {"cat": 1}


def test_other_formats_come_first(folder: Path, tmp_path: Path) -> None:
    paint(folder / "cats/1.png", 7)
    paint(folder / "dogs/1.png", 8)
    write(folder / "cats/1.xmp", list_keywords("Tom"))
    found = run_import(folder, tmp_path / "folders")
    assert found.summary.description.startswith("one folder per label")
    assert found.summary.notes[0] == "1 system file was ignored, such as 'cats/1.xmp'."
    assert found.summary.notes[-1] == (
        "the photos have keywords: to read these as labels, pass --as keywords"
    )
    with pytest.raises(InputError, match="--missing does not apply to the format folders"):
        run_import(folder, tmp_path / "raw", missing="absent")
    found = run_import(folder, tmp_path / "raw", format="keywords", missing="absent")
    assert found.summary.count_labels() == {"Tom": 1}


def test_photos_without_keywords_are_not_imported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown format.* or photos with keywords"):
        run_import(folder, tmp_path / "raw", missing="absent")
    with pytest.raises(InputError, match="no photo has a label"):
        run_import(folder, tmp_path / "raw", format="keywords", missing="absent")
    write(folder / "list.csv", "name;label\n1.png;cat\n")
    write(folder / "a.xmp", list_keywords("cat"))
    with pytest.raises(InputError, match="no column 'file'"):
        run_import(folder, tmp_path / "raw")


def test_sidecar_linked_from_elsewhere_is_not_read(folder: Path, tmp_path: Path) -> None:
    write(folder / "b.xmp", list_keywords("dog"))
    (folder / "a.xmp").symlink_to(write(tmp_path / "other.xmp", list_keywords("cat")))
    found = run_import(folder, tmp_path / "raw", missing="absent")
    assert "a.xmp: link to a file outside the folder; other labels are unknown" in (
        found.summary.notes
    )
    assert found.carried["a.png"] == ""
