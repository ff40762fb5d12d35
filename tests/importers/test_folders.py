import os
import shutil
import zipfile
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from tests.importers.imports import paint, run_import, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for value, name in enumerate(["cats/1.png", "cats/2.png", "dogs/1.png", "dogs/x y.PNG"]):
        paint(tmp_path / "in" / name, value)
    return tmp_path / "in"


def test_a_folder_is_a_class_and_the_same_bytes_in_two_carry_both(
    source: Path, tmp_path: Path
) -> None:
    shutil.copy(source / "cats/2.png", source / "dogs/other name.png")
    shutil.copy(source / "dogs/1.png", source / "dogs/1 (copy).png")
    found = run_import(source, tmp_path / "raw")
    assert found.summary.what == "a folder a class: 6 photos in 2 folders"
    assert found.carried == {
        "cats/1.png": "cats",
        "cats/2.png": "cats dogs",
        "dogs/1 (copy).png": "dogs",
        "dogs/x y.PNG": "dogs",
    }
    assert found.summary.notes == [
        "1 photo in several folders: all of their labels",
        "2 files with the same bytes as another: one photo each",
    ]


@pytest.mark.parametrize("parts", [["", ""], ["my photos/", "my photos/"], ["train/", "Test/"]])
def test_what_all_lie_in_and_splits_are_no_classes(
    source: Path, tmp_path: Path, parts: list[str]
) -> None:
    for folder, part in zip(("cats", "dogs"), parts, strict=True):
        (tmp_path / "new" / part).mkdir(parents=True, exist_ok=True)
        (source / folder).rename(tmp_path / "new" / part / folder)
    found = run_import(tmp_path / "new", tmp_path / "raw")
    assert found.summary.label_counts == {"cats": 2, "dogs": 2}


def test_a_zip_is_read_as_a_folder_is(source: Path, tmp_path: Path) -> None:
    run_import(source, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted(source.rglob("*.*")):
            archive.write(path, path.relative_to(source))
            archive.writestr(f"__MACOSX/{path.parent.name}/{path.name}", b"")
    found = run_import(tmp_path / "in.zip", tmp_path / "b.zip")
    assert found.summary.label_counts == {"cats": 2, "dogs": 2}
    assert "4 system files" in found.summary.notes[0]


@pytest.mark.parametrize(
    ("nested", "labels"),
    [
        ("all", {"cats": 2, "dogs": 2, "animals": 1, "big": 1}),
        ("outer", {"cats": 2, "dogs": 2, "animals": 1}),
        ("inner", {"cats": 2, "dogs": 2, "big": 1}),
    ],
)
def test_folders_in_folders_are_for_the_user_to_tell(
    source: Path, tmp_path: Path, nested: str, labels: dict[str, int]
) -> None:
    paint(source / "animals/big/9.png", 9)
    message = (
        "animals/big/9.png lies in folders in folders: --nested all gives it the labels animals "
        "and big, --nested outer animals alone, --nested inner big alone"
    )
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw")
    assert run_import(source, tmp_path / "raw", nested=nested).summary.label_counts == labels


def test_of_photos_beside_the_folders_nothing_is_known(source: Path, tmp_path: Path) -> None:
    paint(source / "new.png", 9)
    write(source / "README.md", "My photos")
    found = run_import(source, tmp_path / "raw")
    assert found.unknown == {"new.png": "cats dogs"}
    assert found.summary.notes == ["1 photo beside the folders: labels not known"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/1.png", "in: the label 'file' is a manifest column's name"),
        ("im7/1.png", "in: the label 'im7' cannot name a file"),
        ("tags1/1.png", "in: the label 'tags1' cannot name a file"),
        ("a:b/1.png", "in: the label 'a:b' cannot name a file"),
        (f"{'l' * 201}/1.png", "in: the label 'l*' cannot name a file"),
        ("a/b/c/1.png", "a/b/c/1.png lies in folders in folders: .* labels a and b and c, "),
        (os.fsdecode(b"\xff/1.png"), "is not UTF-8"),
    ],
)
def test_folders_that_cannot_be_labels(
    source: Path, tmp_path: Path, name: str, message: str
) -> None:
    paint(source / name, 9)
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_links_out_of_the_folder_are_refused(source: Path, tmp_path: Path) -> None:
    paint(tmp_path / "outside.png", 9)
    (source / "cats/3.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(
        InputError, match=r"cats/3\.png: link to a file outside the folder; mend or remove"
    ):
        run_import(source, tmp_path / "raw")


def test_one_folder_of_photos_has_no_classes(tmp_path: Path) -> None:
    paint(tmp_path / "in/photos/1.png", 1)
    paint(tmp_path / "in/photos/2.png", 2)
    with pytest.raises(InputError, match="no photos in a folder a class"):
        run_import(tmp_path / "in", tmp_path / "raw")
