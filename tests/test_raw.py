import zipfile
from pathlib import Path

import pytest

from phototag.errors import InputError
from phototag.raw import find_layout, list_files, read_file

FILES = {
    "annotations/baby.txt": b"1\n2\n",
    "annotations/notes.md": b"no labels",
    "images/im1.jpg": b"one",
    "images/im2.png": b"two",
    "readme.txt": b"top",
}


def write_source(path: Path, files: dict[str, bytes]) -> Path:
    """Write a zip (with entries of folders, as most programs do) or a folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
                archive.mkdir(folder)
            for name in sorted(files, reverse=True):
                archive.writestr(name, files[name])
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


@pytest.fixture(params=["raw", "raw.zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where to write a source: a folder, then a zip."""
    return tmp_path / str(request.param)


def test_a_folder_and_a_zip_are_listed_and_read_alike(source: Path) -> None:
    write_source(source, FILES)
    assert list_files(source) == sorted(FILES)
    assert {name: read_file(source, name) for name in list_files(source)} == FILES


@pytest.mark.parametrize("root", ["", "train/", "course/2024/"])
def test_the_layout_is_found_wherever_it_stands(source: Path, root: str) -> None:
    write_source(source, {root + name: data for name, data in FILES.items()})
    layout = find_layout(source)
    assert layout.images == [f"{root}images/im1.jpg", f"{root}images/im2.png"]
    assert layout.annotations == [f"{root}annotations/baby.txt"]


def test_an_images_folder_without_annotations_beside_it_does_not_count(source: Path) -> None:
    stray = {"docs/images/im1.jpg": b"", "other/annotations/baby.txt": b""}
    write_source(source, FILES | stray)
    assert find_layout(source).images == ["images/im1.jpg", "images/im2.png"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"im1.jpg": b""}, "none"),
        ({"images/im1.jpg": b"", "baby.txt": b""}, "none"),
        ({"my_images/im1.jpg": b"", "my_annotations/baby.txt": b""}, "none"),
        (FILES | {f"train/{name}": data for name, data in FILES.items()}, "several"),
    ],
)
def test_no_layout_or_several_are_refused(
    source: Path, files: dict[str, bytes], found: str
) -> None:
    write_source(source, files)
    with pytest.raises(InputError, match=f"it holds {found}"):
        find_layout(source)


def test_a_missing_source_and_another_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        list_files(tmp_path / "raw.zip")
    (tmp_path / "raw.zip").write_text("no zip", encoding="utf-8")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        list_files(tmp_path / "raw.zip")
