"""Links that DVC made into its cache are read; links to other places are rejected."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo

from phototag.base.errors import InputError
from phototag.decoding import sources
from phototag.decoding.sources import read_file
from tests.projects import ROOT


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty DVC project, which is the current folder."""
    for level in ("SYSTEM", "GLOBAL"):
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / level))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Repo.init(".", no_scm=True).close()
    yield folder
    sources._find_dvc_cache.cache_clear()


def link(folder: Path, target: Path) -> Path:
    """Link a photo to a target, and return the dataset."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"photo")
    (folder / "raw/images").mkdir(parents=True, exist_ok=True)
    (folder / "raw/images/im1.jpg").unlink(missing_ok=True)
    (folder / "raw/images/im1.jpg").symlink_to(target)
    return folder / "raw"


@pytest.mark.parametrize("kind", ["copy", "hardlink", "symlink"])
@pytest.mark.parametrize("shared_cache", [False, True])
def test_files_that_dvc_tracks_are_read(
    project: Path, tmp_path: Path, kind: str, shared_cache: bool
) -> None:
    names = ["images/im1.jpg", "images/more/im2.jpg", "annotations/cat.txt"]
    for name in names:
        (project / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "raw" / name).write_text(name)
    with zipfile.ZipFile(project / "raw/001-a.zip", "w") as archive:
        archive.writestr("images/im1.jpg", "001-a.zip/images/im1.jpg")
    names.append("001-a.zip/images/im1.jpg")
    with Repo(".") as repo, repo.config.edit("local") as config:
        config["cache"]["type"] = kind
        if shared_cache:
            config["cache"]["dir"] = str(tmp_path / "shared, by all")
    with Repo(".") as repo:
        repo.add("raw")
    for name in ("images/im1.jpg", "001-a.zip"):
        assert (project / "raw" / name).is_symlink() == (kind == "symlink")
    for source in (Path("raw"), project / "raw"):
        assert [read_file(source, name).decode() for name in names] == names


def test_links_to_files_outside_the_cache_are_rejected(project: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "elsewhere/x", tmp_path / "cache/x", project / ".dvc/tmp/x"):
        with pytest.raises(InputError, match="link to a file outside the folder"):
            read_file(link(project, target), "images/im1.jpg")
    assert read_file(link(project, project / ".dvc/cache/x"), "images/im1.jpg") == b"photo"


def test_without_a_dvc_project_all_links_out_of_the_folder_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="link to a file outside the folder"):
        read_file(link(tmp_path, tmp_path / "project/.dvc/cache/x"), "images/im1.jpg")


def test_dvc_stores_a_file_without_copying_it(project: Path) -> None:
    """Otherwise, the hard links in `.phototag` would refer to a second copy of large files."""
    config = (ROOT / ".dvc/config").read_text()
    Path(".dvc/config").write_text(config.replace("[core]", "[core]\n    no_scm = True"))
    Path("images.npy").write_bytes(b"pixels")
    Path("link.npy").hardlink_to("images.npy")
    with Repo(".") as repo:
        repo.add("images.npy")
    (cached,) = Path(".dvc/cache/files/md5").glob("*/*")
    assert Path("link.npy").samefile(cached)
    assert Path("link.npy").samefile("images.npy")
