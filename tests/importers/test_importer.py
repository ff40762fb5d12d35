import csv
import hashlib
import io
import os
import unicodedata
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files, read_file
from phototag.importers.importer import import_photos
from phototag.verification.labels import find_invalid_names, read_labels
from phototag.verification.layout import find_layout
from phototag.verification.packing import prepare_photos


def photo(path: Path, value: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path)
    return path.read_bytes()


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def read_listed(destination: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_file(destination, "sources.csv").decode())))


def read_back(destination: Path) -> tuple[list[str], dict[str, list[int]]]:
    layout = find_layout(destination)
    labels = read_labels(destination, layout.annotations, layout.images)
    return layout.images, {label: column.tolist() for label, column in labels.targets.items()}


@pytest.fixture
def course(tmp_path: Path) -> Path:
    for number in (1, 2, 10):
        photo(tmp_path / f"course/train/images/im{number}.jpg", number)
    text(tmp_path / "course/train/annotations/cat.txt", "2\n10\n")
    text(tmp_path / "course/train/annotations/dog.txt", "")
    return tmp_path / "course"


@pytest.mark.parametrize("packed", [True, False])
def test_course_data_is_read_from_folder_or_zip(course: Path, tmp_path: Path, packed: bool) -> None:
    source, destination = course, "new/raw.zip"
    if packed:
        source = tmp_path / "course.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(course.rglob("*.*")):
                archive.write(path, path.relative_to(course))
    summary = import_photos(source, tmp_path / destination)
    assert (len(summary.photos), summary.count_labels()) == (3, {"cat": 2, "dog": 0})
    images, labels = read_back(tmp_path / destination)
    assert images == ["images/im1.jpg", "images/im10.jpg", "images/im2.jpg"]
    assert labels == {"cat": [0, 1, 1], "dog": [0, 0, 0]}
    original = (course / "train/images/im10.jpg").read_bytes()
    assert read_file(tmp_path / destination, "images/im10.jpg") == original
    assert [p.name for p in (tmp_path / "new").iterdir()] == [Path(destination).name]


def test_equal_photos_make_equal_zips(course: Path, tmp_path: Path) -> None:
    import_photos(course, tmp_path / "a.zip")
    os.utime(course / "train/images/im1.jpg", (0, 0))
    import_photos(course, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_nothing_is_overwritten(course: Path, tmp_path: Path) -> None:
    (tmp_path / "raw.zip").write_text("mine")
    with pytest.raises(InputError, match="exists: remove it"):
        import_photos(course, tmp_path / "raw.zip")
    assert (tmp_path / "raw.zip").read_text() == "mine"


def test_a_failed_import_leaves_nothing(course: Path, tmp_path: Path) -> None:
    (course / "train/images/im7.jpg").symlink_to(photo_outside(tmp_path))
    with pytest.raises(InputError, match="link to a file outside the folder"):
        import_photos(course, tmp_path / "out/raw.zip")
    assert list((tmp_path / "out").iterdir()) == []


def photo_outside(folder: Path) -> Path:
    photo(folder / "outside.jpg", 9)
    return folder / "outside.jpg"


def test_csv_photos_are_numbered_and_listed_in_sources_csv(tmp_path: Path) -> None:
    for index, name in enumerate(("p/eins.JPG", "zwei.png", "p/drei ö.jpg")):
        photo(tmp_path / name, index)
    rows = "\ufefffile,label,group\np/eins.JPG,cat;dog,ann\nzwei.png,,\np/drei ö.jpg,dog,bo\n"
    text(tmp_path / "list.csv", rows)
    summary = import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert summary.count_labels() == {"cat": 1, "dog": 2}
    images, labels = read_back(tmp_path / "raw.zip")
    assert images == ["images/im1.jpg", "images/im2.png", "images/im3.jpg"]
    assert labels == {"cat": [1, 0, 0], "dog": [1, 0, 1]}
    listed = read_listed(tmp_path / "raw.zip")
    assert [row["source"] for row in listed] == ["p/eins.JPG", "zwei.png", "p/drei ö.jpg"]
    assert [row["group"] for row in listed] == ["ann", "", "bo"]
    digests = [hashlib.sha256((tmp_path / row["source"]).read_bytes()) for row in listed]
    assert [row["sha256"] for row in listed] == [digest.hexdigest() for digest in digests]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\na.png\n", "csv:1: no column of labels"),
        ("file,label\na.png,x/y\n", "csv:2: label 'x/y' cannot be a file name"),
        ("", "csv:1: no column 'file'"),
        ("a.png,cat\n", "csv:1: no column 'file'"),
        ("file,label,Label\na.png,x,y\n", "csv:1: two columns are named 'label'"),
        ("file,label\na.png,cat,outdoor,night\n",
         "csv:2: the row has 4 cells, but the header has 2: .* ',', .* separated by ';'"),
        ("file,label,\na.png,cat,outdoor\n", "csv:2: the row has 3 cells, but the header has 2"),
        ("file;label\na.png;cat;outdoor\n", "csv:2: .* separate cells with ';'"),
        ("file,label\n\na.png,\"cat\nb.png,dog\n", "csv:3: .*quotation mark"),
        ("file,label\na.png,\"cat\"x\n", "csv:2: .*quotation mark"),
        ("file,label\na.png,x\nsub/../a.png,y\n", "csv:3: .* is already listed in .*:2"),
        ("file,label\nsub,x\n", "csv:2: .*sub is not a file"),
        ("file,label\n" + "b" * 300 + ",x\n", "csv:2: .* is missing"),
        ("file,label\na.png,mode\n", "csv:2: .*label 'mode' is a manifest column's name"),
        ('file,label\na.png,"x\ty"\n', "csv:2: .* may be one label or several"),
        ("file,label\na.png," + "é" * 101 + "\n", "csv:2: label .* cannot be a file name"),
        ("file,label\na.png,.cat\n", "csv:2: label '.cat' cannot be a file name"),
        ("file,label\na.png,~$cat\n", "csv:2: label .* cannot be a file name"),
    ],
)  # fmt: skip
def test_csv_error_names_the_line(tmp_path: Path, content: str, message: str) -> None:
    photo(tmp_path / "a.png", 1)
    (tmp_path / "sub").mkdir()
    text(tmp_path / "list.csv", content)
    with pytest.raises(InputError, match=message):
        import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert not (tmp_path / "raw.zip").exists()


EMPTY_CELL = "empty cells of labels, read as no label (write ? if they are unknown): 1"
ROWS = [["file", "label", "group"], ["a.png", "été;cat", "ann"], ["b.png", "", ""]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_encoding_and_separator_are_found(
    tmp_path: Path, encoding: str, separator: str
) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / name, 1)
    with (tmp_path / "list.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(ROWS)
    summary = import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert (len(summary.photos), summary.count_labels()) == (2, {"cat": 1, "été": 1})
    assert summary.notes == [EMPTY_CELL]
    assert read_listed(tmp_path / "raw.zip")[0]["group"] == "ann"


@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "mac-roman", "shift-jis"])
def test_csv_in_single_byte_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "a.png", 1)
    label = "猫" if encoding == "shift-jis" else "été"
    content = f"file,label\r\na.png,cat\r\nb.png,{label}\r\n"
    (tmp_path / "list.csv").write_bytes(content.encode(encoding))
    with pytest.raises(InputError, match=r"list\.csv:3: not UTF-8 \(byte 0x"):
        import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")


def test_csv_in_mixed_encoding_or_truncated_is_refused(tmp_path: Path) -> None:
    mixed = "\ufefffile,label\na.png,été\n".encode() + "b.png,été\n".encode("cp1252")
    for data, name in (
        (mixed, "csv:3: not UTF-8"),
        ("file,label\na.png,x\n".encode("utf-16")[:-1], "csv:2: not UTF-16"),
    ):
        (tmp_path / "list.csv").write_bytes(data)
        with pytest.raises(InputError, match=name):
            import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")


def test_csv_with_spreadsheet_quirks_is_read(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / name, 1)
    rows = '\r\n File ;LABELS;note;;\r\na.png;" cat ; dog;";x;;\r\n;;;;\r\n\r\nb.png;;\r\n'
    text(tmp_path / "list.csv", rows + "c.png;Cat\r\n")
    summary = import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert summary.count_labels() == {"Cat": 1, "cat": 1, "dog": 1}
    assert summary.notes == ["skipped columns: note", EMPTY_CELL]


NAMES = [
    "photo", "p.JPG", "a.b.c", "no suffix here", "two words.jpg", "ö.jpeg", "猫", "x.jpg?size=2",
    "x.php", "x.", "..x", "x.tmp", "x.bak~", "x.jpg.part", ".hidden", "im7", "Thumbs.db", "l" * 240,
]  # fmt: skip


def test_resize_reads_every_imported_file_name(tmp_path: Path) -> None:
    destination = "raw.zip"
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for value, name in enumerate(NAMES):
            Image.new("RGB", (40, 40), (value, value, value)).save(tmp_path / name, "JPEG")
            writer.writerow([name, "cat"])
        (tmp_path / "no photo.tmp").write_bytes(b"no photo")
        writer.writerow(["no photo.tmp", "cat"])
    summary = import_photos(tmp_path / "list.csv", tmp_path / destination)
    layout = find_layout(tmp_path / destination)
    assert len(layout.images) == len(summary.photos) == len(NAMES) + 1
    assert (find_invalid_names(layout.images), layout.system_files) == ({}, [])
    photos = prepare_photos(tmp_path / destination, layout.images, 32, n_jobs=1)
    decisions = [photo.decision for photo in photos]
    assert (decisions.count("kept"), decisions.count("rejected")) == (len(NAMES), 1)


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_unicode_form_are_found(
    tmp_path: Path, form: Literal["NFC", "NFD"], other: Literal["NFC", "NFD"]
) -> None:
    photo(tmp_path / unicodedata.normalize(form, "é/ö.png"), 1)
    row = unicodedata.normalize(other, "é/ö.png,été,älbum")
    text(tmp_path / "list.csv", f"file,label,group\n{row}\n")
    import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert "annotations/été.txt" in list_files(tmp_path / "raw.zip")
    assert read_listed(tmp_path / "raw.zip")[0]["group"] == "älbum"
    both = f"file,label\né/ö.png,été\n{unicodedata.normalize('NFD', 'é/ö.png')},x\n"
    text(tmp_path / "list.csv", both)
    with pytest.raises(InputError, match=r"csv:3: .* is already listed in .*:2"):
        import_photos(tmp_path / "list.csv", tmp_path / "again.zip")


def test_labels_in_two_unicode_forms_are_one_label(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 1)
    forms = [unicodedata.normalize(form, "été") for form in ("NFC", "NFD")]
    text(tmp_path / "list.csv", f"file,label\na.png,{forms[0]};{forms[1]}\n")
    assert import_photos(tmp_path / "list.csv", tmp_path / "raw.zip").count_labels() == {
        forms[0]: 1
    }
    photo(tmp_path / "old/images/im1.jpg", 1)
    for form in forms:
        text(tmp_path / f"old/annotations/{form}.txt", "1\n")
    with pytest.raises(InputError, match="label files of the same label"):
        import_photos(tmp_path / "old", tmp_path / "new.zip")


def test_csv_with_backslashes_is_read(tmp_path: Path) -> None:
    photo(tmp_path / "cats/one.png", 1)
    text(tmp_path / "list.csv", "file,label\r\ncats\\one.png,cat\r\n")
    assert import_photos(tmp_path / "list.csv", tmp_path / "raw.zip").count_labels() == {"cat": 1}


def test_label_named_like_manifest_column_is_refused(course: Path, tmp_path: Path) -> None:
    text(course / "train/annotations/mode.txt", "1\n")
    with pytest.raises(InputError, match="label 'mode' is a manifest column's name"):
        import_photos(course, tmp_path / "raw.zip")
    assert not (tmp_path / "raw.zip").exists()


def test_system_files_and_other_files_are_skipped_and_noted(course: Path, tmp_path: Path) -> None:
    for number in (1, 2, 10):
        text(course / f"train/images/._im{number}.jpg", "")
        text(course / f"__MACOSX/train/images/._im{number}.jpg", "")
    text(course / "train/annotations/._cat.txt", "")
    text(course / "train/images/IM3.JPG", "")
    text(course / "train/annotations/dog.txt", "3\n1\n1\n\n")
    summary = import_photos(course, tmp_path / "raw.zip")
    assert (len(summary.photos), summary.count_labels()) == (3, {"cat": 2, "dog": 1})
    assert "7 system files were ignored" in summary.notes[0]
    assert summary.notes[1:] == [
        "skipped files not named imN.jpg: 1, such as 'train/images/IM3.JPG'",
        "problems in label files: no such image: 1",
    ]
    text(course / "train/annotations/README.txt", "Our labels")
    with pytest.raises(InputError, match=r"README\.txt:1: not an image number: 'Our labels'; fix"):
        import_photos(course, tmp_path / "again.zip")


def test_source_without_photos_or_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="unknown format; expected"):
        import_photos(tmp_path / "empty", tmp_path / "raw.zip")
    photo(tmp_path / "bare/im1.jpg", 1)
    with pytest.raises(InputError, match="unknown format; expected"):
        import_photos(tmp_path / "bare", tmp_path / "raw.zip")


@pytest.mark.photos
def test_mirflickr_2500_is_imported(tmp_path: Path) -> None:
    folder = os.environ.get("PHOTOTAG_PHOTOS")
    if not folder:
        pytest.skip("PHOTOTAG_PHOTOS names no folder of real photos")
    summary = import_photos(Path(folder, "mirflickr-2500.zip"), tmp_path / "raw.zip")
    assert (len(summary.photos), len(summary.count_labels())) == (2500, 14)
    columns = read_back(tmp_path / "raw.zip")[1]
    assert np.sum(list(columns.values())) == sum(summary.count_labels().values())
