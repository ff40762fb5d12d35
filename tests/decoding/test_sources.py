"""Files of folders and zips."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files, read_file

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


def test_folder_and_zip_give_the_same_files(source: Path) -> None:
    write_source(source, FILES)
    assert list_files(source) == sorted(FILES)
    assert {name: read_file(source, name) for name in list_files(source)} == FILES


def test_utf8_names_without_the_flag_are_read(tmp_path: Path) -> None:
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/XXXX.txt", b"1")
    path.write_bytes(path.read_bytes().replace(b"XXXX", "étt".encode()))  # UTF-8, not flagged
    assert list_files(path) == ["annotations/étt.txt"]


@pytest.mark.parametrize(
    "other",
    [
        "images/im1.jpg",
        "images\\im1.jpg",
        "/images/./im1.jpg",
        "images/../im1.jpg",
        "images/im1.jpg\0",
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_different_members_with_one_name_are_refused(tmp_path: Path, other: str) -> None:
    for content in (b"one", b"two"):
        path = tmp_path / f"{content.decode()}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images/im1.jpg", b"one")
            archive.writestr(other, content)
    assert list_files(tmp_path / "one.zip") == ["images/im1.jpg"]
    assert read_file(tmp_path / "one.zip", "images/im1.jpg") == b"one"
    with pytest.raises(InputError, match=r"two\.zip holds different files named images/im1\.jpg: "):
        list_files(tmp_path / "two.zip")


def test_replaced_zip_is_read_again(tmp_path: Path) -> None:
    for files in (FILES, {"images/im9.jpg": b"nine"}):
        source = write_source(tmp_path / "raw.zip", files)
        assert list_files(source) == sorted(files)
        assert read_file(source, min(files)) == files[min(files)]


def test_missing_source_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        list_files(tmp_path / "raw.zip")
    (tmp_path / "raw.zip").write_text("no zip", encoding="utf-8")
    with pytest.raises(InputError, match="neither a folder nor a valid zip"):
        list_files(tmp_path / "raw.zip")


def test_source_that_cannot_be_opened_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, reason in {
        tmp_path / "loop": "is missing",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "a\0b": "is missing",
    }.items():
        with pytest.raises(InputError, match=reason):
            list_files(path)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    write_source(tmp_path / "raw", FILES)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="raw: Permission denied"):  # not an empty folder
        list_files(tmp_path / "raw")


@pytest.mark.parametrize("name", ["none.jpg", "../x.jpg", "a\0b", "x" * 300])
def test_missing_zip_member_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"^no such file in the zip$"):
        read_file(write_source(tmp_path / "raw.zip", FILES), name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "unreadable: File name too long"),
        ("a\0b", "unreadable: (l?stat: )?embedded null"),
        ("circle/im1.jpg", "unreadable: Too many levels"),
        ("circle", "broken link"),
        ("images", "folder"),
        ("readme.txt/im1.jpg", "unreadable: Not a directory"),
    ],
)
def test_unreadable_path_is_refused_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    source = write_source(tmp_path / "raw", FILES)
    (source / "circle").symlink_to("round")
    (source / "round").symlink_to("circle")
    with pytest.raises(InputError, match=f"^{reason}"):
        read_file(source, name)


PIXELS = bytes(range(256)) * 40


def patch_member(path: Path, at: int, central: int, value: bytes) -> None:
    """Write the only member of a zip anew: a field of its own header and of the directory's."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2")
    data[at : at + len(value)] = value
    data[start + central : start + central + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                                    zipfile.ZIP_LZMA])  # fmt: skip
def test_damaged_zip_member_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("im1.jpg", PIXELS)
    whole = path.read_bytes()
    end = whole.index(b"PK\1\2")
    for place in range(37, end, max((end - 37) // 40, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert read_file(path, "im1.jpg") == PIXELS  # some bits of a stream do not matter
        except InputError as error:
            assert str(error).startswith("unreadable: ")  # noqa: PT017


@pytest.mark.parametrize("damage", ["size", "method", "encrypted", "version", "bomb"])
def test_zip_member_with_a_wrong_header_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "raw.zip"
    method = zipfile.ZIP_BZIP2 if damage == "bomb" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("im1.jpg", bytes(10**7) if damage == "bomb" else PIXELS)
    at, central, value = {
        "size": (22, 24, b"\0\1\0\0"),
        "method": (8, 10, b"\x09\0"),  # deflate64
        "encrypted": (6, 8, b"\1\0"),
        "version": (4, 6, b"\xff\xff"),
        "bomb": (22, 24, b"\x10\0\0\0"),
    }[damage]
    patch_member(path, at, central, value)
    with pytest.raises(InputError):
        read_file(path, "im1.jpg")


def test_zip_with_a_damaged_directory_raises_input_error_only(tmp_path: Path) -> None:
    source = write_source(tmp_path / "raw.zip", FILES)
    whole = source.read_bytes()
    start = whole.index(b"PK\1\2")
    for place in range(start, len(whole)):
        source.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            for name in list_files(source):
                read_file(source, name)
        except InputError:
            pass  # and nothing else


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
        5: "link to a file outside the folder",
        6: "broken link",
        7: "link to a folder",
        8: "unreadable: No such file or directory",
    }.items():
        with pytest.raises(InputError, match=f"^{reason}$"):
            read_file(source, f"images/im{number}.jpg")


def test_links_and_large_zip_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        link = zipfile.ZipInfo("images/im2.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/hostname")
        with archive.open("images/im3.jpg", "w") as member:
            for _ in range(513):
                member.write(bytes(2**20))
    with pytest.raises(InputError, match="link in a zip"):
        read_file(path, "images/im2.jpg")
    with pytest.raises(InputError, match="file too large: 513 MiB"):
        read_file(path, "images/im3.jpg")


def test_zip_may_be_a_link(tmp_path: Path) -> None:
    target = write_source(tmp_path / "cache.zip", FILES)
    (tmp_path / "raw.zip").symlink_to(target)
    assert read_file(tmp_path / "raw.zip", "images/im1.jpg") == b"one"
