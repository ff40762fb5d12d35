"""Layout of a dataset's source."""

import zipfile
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file
from phototag.verification.layout import find_layout
from tests.decoding.test_sources import FILES, write_source


@pytest.fixture(params=["raw", "raw.zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Path of a source to write: a folder, then a zip."""
    return tmp_path / str(request.param)


@pytest.mark.parametrize("root", ["", "train/", "course/2024/"])
def test_layout_is_found_in_any_folder(source: Path, root: str) -> None:
    stray = {"docs/images/im1.jpg": b"", "other/annotations/baby.txt": b""}
    write_source(source, {root + name: data for name, data in FILES.items()} | stray)
    layout = find_layout(source)
    assert layout.images == [f"{root}images/im1.jpg", f"{root}images/im2.png"]
    assert layout.annotations == [f"{root}annotations/baby.txt", f"{root}annotations/notes.md"]
    assert layout.sources is None


@pytest.mark.parametrize(
    ("images", "annotations"),
    [("images/a", "annotations"), ("IMAGES", "ANNOTATIONS"), ("x/Images/a/b", "x/annotations")],
)
def test_subfolders_and_capital_letters_are_accepted(
    source: Path, images: str, annotations: str
) -> None:
    files = {f"{images}/im1.jpg": b"1", f"{images}2/im2.jpg": b"2", f"{annotations}/cat.txt": b"1"}
    if images == "IMAGES":
        del files["IMAGES2/im2.jpg"]
    write_source(source, files)
    layout = find_layout(source)
    assert [*layout.images, *layout.annotations] == list(files)


@pytest.mark.parametrize("root", ["", "./", "/", "train/", "C:/photos/", "../"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_zip_with_any_slashes_and_root_is_accepted(tmp_path: Path, root: str, slash: str) -> None:
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("images/", "images/a/im1.jpg", "annotations/cat.txt"):
            archive.writestr((root + name).replace("/", slash), name)
    layout = find_layout(path)
    assert len(layout.images) == len(layout.annotations) == 1
    assert read_file(path, layout.images[0]) == b"images/a/im1.jpg"


def test_system_files_are_listed_separately(source: Path) -> None:
    left = ["__MACOSX/images/._im1.jpg", "annotations/._baby.txt", "images/.DS_Store"]
    left += ["images/@eaDir/im1.jpg/x.jpg", "images/im1.xmp"]
    write_source(source, FILES | dict.fromkeys([*left, "sources.csv"], b""))
    layout = find_layout(source)
    assert layout.images == ["images/im1.jpg", "images/im2.png"]
    assert layout.annotations == ["annotations/baby.txt", "annotations/notes.md"]
    assert (layout.system_files, layout.sources) == (left, "sources.csv")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"im1.jpg": b""}, "no folder"),
        ({"images/im1.jpg": b"", "baby.txt": b""}, "no folder"),
        ({"my_images/im1.jpg": b"", "my_annotations/baby.txt": b""}, "no folder"),
        (FILES | {f"train/{name}": data for name, data in FILES.items()}, "several folders"),
    ],
)
def test_no_layout_or_several_are_refused(
    source: Path, files: dict[str, bytes], found: str
) -> None:
    write_source(source, files)
    with pytest.raises(InputError, match=f"holds {found}"):
        find_layout(source)


@pytest.mark.parametrize("folder", ["images", "annotations", "unknown"])
def test_linked_folder_is_refused(tmp_path: Path, folder: str) -> None:
    source = write_source(tmp_path / "raw", FILES | {"unknown/baby.txt": b""})
    (source / folder).rename(tmp_path / "elsewhere")
    (source / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{folder} is a link to a folder, which is not followed"):
        find_layout(source)


def test_unknown_folder_lies_beside_the_annotations(source: Path) -> None:
    others = {"train/Unknown/cat.txt": b"1", "unknown/dog.txt": b"1", "train/unknowns/a.txt": b""}
    write_source(source, {f"train/{name}": data for name, data in FILES.items()} | others)
    layout = find_layout(source)
    assert layout.unknown == ["train/Unknown/cat.txt"]
    assert len(layout.annotations) == 2
