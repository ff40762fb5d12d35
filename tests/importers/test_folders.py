import os
import shutil
import zipfile
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files
from tests.importers.imports import paint, run_import, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for value, name in enumerate(["cats/1.png", "cats/2.png", "dogs/1.png", "dogs/x y.PNG"]):
        paint(tmp_path / "in" / name, value)
    return tmp_path / "in"


def test_photo_in_two_folders_carries_both_labels(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "cats/2.png", source / "dogs/other name.png")
    shutil.copy(source / "dogs/1.png", source / "dogs/1 (copy).png")
    found = run_import(source, tmp_path / "raw.zip")
    assert found.summary.description == "one folder per label: 6 photos in 2 folders"
    assert found.carried == {
        "cats/1.png": "cats",
        "cats/2.png": "cats dogs",
        "dogs/1 (copy).png": "dogs",
        "dogs/x y.PNG": "dogs",
    }
    assert found.summary.notes == ["skipped files with the same bytes as another file: 2"]


@pytest.mark.parametrize(
    "parts",
    [
        ["", ""],
        ["my photos/", "my photos/"],
        ["train/", "Test/"],
        ["a/seg_train/seg_train/", "a/seg_test/seg_test/"],
        ["training_set/photos/", "val-2017/photos/"],
    ],
)
def test_common_folder_and_splits_are_not_labels(
    source: Path, tmp_path: Path, parts: list[str]
) -> None:
    for folder, part in zip(("cats", "dogs"), parts, strict=True):
        (tmp_path / "new.zip" / part).mkdir(parents=True, exist_ok=True)
        (source / folder).rename(tmp_path / "new.zip" / part / folder)
    found = run_import(tmp_path / "new.zip", tmp_path / "raw.zip")
    assert found.summary.count_labels() == {"cats": 2, "dogs": 2}


def test_zip_is_read_like_folder(source: Path, tmp_path: Path) -> None:
    run_import(source, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted(source.rglob("*.*")):
            archive.write(path, path.relative_to(source))
            archive.writestr(f"__MACOSX/{path.parent.name}/{path.name}", b"")
    found = run_import(tmp_path / "in.zip", tmp_path / "b.zip")
    assert found.summary.count_labels() == {"cats": 2, "dogs": 2}
    assert "4 system files" in found.summary.notes[0]


def test_photo_in_nested_folders_carries_all_their_labels(source: Path, tmp_path: Path) -> None:
    paint(source / "animals/big/9.png", 9)
    found = run_import(source, tmp_path / "raw.zip")
    assert found.carried["animals/big/9.png"] == "animals big"
    note = "photos in nested folders, labelled with all folder names: 1"
    assert found.summary.notes == [note]


def test_labels_of_photo_outside_of_folders_are_unknown(source: Path, tmp_path: Path) -> None:
    paint(source / "new.png", 9)
    write(source / "README.md", "My photos")
    found = run_import(source, tmp_path / "raw.zip")
    assert found.unknown == {"new.png": "cats dogs"}
    assert found.summary.notes == [
        "skipped files that are not photos: 1, such as 'README.md'",
        "photos outside the label folders: 1",
    ]
    unlabelled = ["photos without a label, read as having unknown labels: 1"]
    assert found.summary.describe_unlabelled() == unlabelled


@pytest.mark.parametrize("zipped", [False, True])
def test_content_decides_about_files_with_other_extensions(
    source: Path, tmp_path: Path, zipped: bool
) -> None:
    names = ["8", "1.jpg_large", "2.jpg!d", "3.CR2", "4.jpe", "5.jfif", "6.webp?w=9", "7.tar.gz"]
    for value, name in enumerate(names):
        paint(tmp_path / "new.png", 50 + value)
        (tmp_path / "new.png").rename(source / "dogs" / name)
    # The content of files with the extension of a photo is checked when they are decoded.
    others = {"birds/1.jxl": "\xff\n", "birds/2.mp4": "ftyp", "dogs/9.svg": "<svg/>", "BMW": "BMW"}
    for name, content in others.items():
        write(source / name, content)
    if zipped:
        shutil.make_archive(str(source), "zip", source)
        source = source.with_suffix(".zip")
    found = run_import(source, tmp_path / "raw.zip")
    assert found.summary.count_labels() == {"cats": 2, "dogs": 2 + len(names)}
    assert found.summary.notes == [
        "skipped files that are not photos: 4, such as 'BMW'",
        "folders without a photo, which did not become labels: birds",
    ]
    suffixes = {Path(name).suffix for name in list_files(tmp_path / "raw.zip") if "images/" in name}
    assert suffixes == {".png", ".jpe", ".jfif"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/1.png", "in: .*label 'file' is a manifest column's name"),
        ("a:b/1.png", "in: label 'a:b' cannot be a file name"),
        (f"{'l' * 201}/1.png", "in: label 'l*' cannot be a file name"),
        (os.fsdecode(b"\xff/1.png"), "is not UTF-8"),
    ],
)
def test_folder_that_cannot_be_a_label_is_refused(
    source: Path, tmp_path: Path, name: str, message: str
) -> None:
    paint(source / name, 9)
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw.zip")
    assert not (tmp_path / "raw.zip").exists()


def test_link_out_of_folder_is_refused(source: Path, tmp_path: Path) -> None:
    paint(tmp_path / "outside.png", 9)
    (source / "cats/3.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(
        InputError, match=r"cats/3\.png: link to a file outside the folder; fix or remove"
    ):
        run_import(source, tmp_path / "raw.zip")


def test_single_folder_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "in/photos/1.png", 1)
    paint(tmp_path / "in/photos/2.png", 2)
    with pytest.raises(InputError, match="unknown format; expected"):
        run_import(tmp_path / "in", tmp_path / "raw.zip")
    write(tmp_path / "in/dogs/1.jxl", "not decoded")
    with pytest.raises(
        InputError,
        match=r"unknown format; skipped files that are not photos: 1, such as 'dogs/1.jxl'",
    ):
        run_import(tmp_path / "in", tmp_path / "raw.zip")
