"""DVC's own links, made by DVC, and links that are none of its own."""

import os
import zipfile
from pathlib import Path

import pytest
from dvc.repo import Repo

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file
from phototag.verification.layout import find_layout


@pytest.fixture(autouse=True)
def no_config_but_the_project_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for level in ("SYSTEM", "GLOBAL"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / level))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))


def write_object(cache: Path, data: bytes = b"photo") -> Path:
    """Write a file as DVC keeps it."""
    path = cache / "files/md5/ab/cdef0123456789"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def link(folder: Path, target: Path) -> Path:
    """Link a photo to a target; return the data set."""
    (folder / "raw/images").mkdir(parents=True, exist_ok=True)
    (folder / "raw/images/im1.jpg").unlink(missing_ok=True)
    (folder / "raw/images/im1.jpg").symlink_to(target)
    return folder / "raw"


@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_dvc_has_linked_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, elsewhere: bool
) -> None:
    project = tmp_path / "project"
    for name in ("images/im1.jpg", "images/more/im2.jpg", "annotations/cat.txt"):
        (project / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "raw" / name).write_text(name)
    monkeypatch.chdir(project)
    with Repo.init(".", no_scm=True) as repo:
        with repo.config.edit() as config:
            config["cache"]["type"] = kind
        if elsewhere:
            with repo.config.edit("local") as config:
                config["cache"]["dir"] = str(tmp_path / "shared, by all")
    with Repo(".") as repo:
        repo.add("raw")
    assert (project / "raw/images/im1.jpg").is_symlink() == (kind == "symlink")
    layout = find_layout(Path("raw"))
    names = [*layout.images, *layout.annotations]
    assert len(names) == 3
    for source in (Path("raw"), project / "raw"):
        assert [read_file(source, name).decode() for name in names] == names


@pytest.mark.parametrize("level", ["config", "config.local", "GLOBAL", "SYSTEM"])
def test_the_cache_is_where_the_last_level_of_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    project = tmp_path / "project"
    source = link(project, write_object(tmp_path / "shared"))
    (project / ".dvc").mkdir()
    monkeypatch.chdir(project)
    with pytest.raises(InputError, match="a link out of the folder"):
        read_file(source, "images/im1.jpg")
    (tmp_path / "GLOBAL").mkdir()
    (tmp_path / "SYSTEM").mkdir()
    places = {"config": project / ".dvc/config", "config.local": project / ".dvc/config.local"}
    path = places.get(level, tmp_path / level / "config")
    cache = os.path.relpath(tmp_path / "shared", path.parent)
    path.write_text(
        "[core]\n    analytics = false\n['remote \"x\"']\n    url = /x\n"
        f"[cache]\n    type = symlink\n    dir = {cache}\n"
    )
    assert read_file(source, "images/im1.jpg") == b"photo"
    (project / ".dvc/config.local").write_text("[cache]\ndir = elsewhere\n")
    with pytest.raises(InputError, match="a link out of the folder"):
        read_file(source, "images/im1.jpg")


def test_a_source_in_another_project_has_that_project_s_own_cache_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    source = link(other, write_object(other / ".dvc/cache"))
    monkeypatch.chdir(tmp_path)
    assert read_file(source, "images/im1.jpg") == b"photo"
    # What came with the photos must not open the disk.
    secret = tmp_path / "home/secret.jpg"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    (other / ".dvc/config").write_text(f"[cache]\n    dir = {secret.parent}\n")
    link(other, secret)
    with pytest.raises(InputError, match="a link out of the folder"):
        read_file(source, "images/im1.jpg")
    (other / ".dvc/cache").rename(other / ".dvc/old")
    (other / ".dvc/cache").symlink_to(secret.parent)
    with pytest.raises(InputError, match="a link out of the folder"):
        read_file(source, "images/im1.jpg")


@pytest.mark.parametrize("config", ["", "no config", "[cache]\n", "\xff[cache", "[cache]\ndir\n"])
def test_links_to_anywhere_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc/config").write_text(config, encoding="latin-1")
    monkeypatch.chdir(project)
    for target in (
        Path("/etc/hostname"),
        write_object(tmp_path / "elsewhere"),
        write_object(tmp_path / "cache"),
        write_object(project / ".dvc/tmp"),
    ):
        with pytest.raises(InputError, match="a link out of the folder"):
            read_file(link(project, target), "images/im1.jpg")
    inside = write_object(project / ".dvc/cache")
    assert read_file(link(project, inside), "images/im1.jpg") == b"photo"


def test_a_zip_may_be_a_link(tmp_path: Path) -> None:

    with zipfile.ZipFile(write_object(tmp_path / ".dvc/cache"), "w") as archive:
        archive.writestr("images/im1.jpg", "photo")
    (tmp_path / "raw.zip").symlink_to(tmp_path / ".dvc/cache/files/md5/ab/cdef0123456789")
    assert read_file(tmp_path / "raw.zip", "images/im1.jpg") == b"photo"
