import os
import stat
import zipfile
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.intake.raw import find_layout, list_files, read_file

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
    assert layout.annotations == [f"{root}annotations/baby.txt", f"{root}annotations/notes.md"]
    assert layout.sources is None


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


def test_links_and_pipes_are_refused_with_the_reason(tmp_path: Path) -> None:
    source = write_source(tmp_path / "raw", FILES)
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    os.mkfifo(source / "images/im3.jpg")
    for name, target in {
        "im4.jpg": "im1.jpg",
        "im5.jpg": "../../outside.jpg",
        "im6.jpg": "gone.jpg",
        "im7.jpg": ".",
    }.items():
        (source / "images" / name).symlink_to(target)
    listed = set(list_files(source))
    assert {f"images/im{number}.jpg" for number in range(3, 8)} < listed
    assert read_file(source, "images/im4.jpg") == b"one"
    for number, reason in {
        3: "not a regular file",
        5: "a link out of the folder",
        6: "a broken link",
        7: "a link to a folder",
        8: "unreadable: No such file or directory",
    }.items():
        with pytest.raises(InputError, match=f"^{reason}$"):
            read_file(source, f"images/im{number}.jpg")


def test_members_of_a_zip_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/im1.jpg", b"pixels" * 100)
        link = zipfile.ZipInfo("images/im2.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/hostname")
        with archive.open("images/im3.jpg", "w") as member:
            for _ in range(513):
                member.write(bytes(2**20))
    data = bytearray(path.read_bytes()[: 2**20])
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("images/im1.jpg", b"pixels" * 100)
    data = bytearray(damaged.read_bytes())
    data[60] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(InputError, match="unreadable: Bad CRC-32"):
        read_file(damaged, "images/im1.jpg")
    with pytest.raises(InputError, match="a link in a zip"):
        read_file(path, "images/im2.jpg")
    with pytest.raises(InputError, match="too many bytes: 513 MiB"):
        read_file(path, "images/im3.jpg")


def test_a_linked_images_folder_is_told_and_shadows_of_macos_are_not_a_layout(
    tmp_path: Path,
) -> None:
    source = write_source(
        tmp_path / "raw", FILES | {f"__MACOSX/{name}": b"" for name in FILES} | {"sources.csv": b""}
    )
    layout = find_layout(source)
    assert layout.images == ["images/im1.jpg", "images/im2.png"]
    assert layout.sources == "sources.csv"
    (source / "images").rename(tmp_path / "photos")
    (source / "images").symlink_to(tmp_path / "photos")
    with pytest.raises(InputError, match="images is a link to a folder, which is not followed"):
        find_layout(source)
