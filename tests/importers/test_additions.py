"""Imports into a project: the first photos, photos added to them, and refused combinations."""

import csv
import io
import os
import shutil
import signal
import zipfile
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from phototag.base import processes
from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.cli.training import import_
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.sources import list_files, read_file
from phototag.importers import additions, formats
from phototag.schema.params import read_all_params
from phototag.verification.imports import read_dataset
from tests.conftest import SHIPPED_PARAMS
from tests.importers.imports import paint, write
from tests.importers.sidecars import list_keywords


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a project; its parent has photos of cats and dogs."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(SHIPPED_PARAMS, folder / "params.yaml")
    monkeypatch.chdir(folder)
    for value, name in enumerate(("cat/1.png", "cat/2.png", "dog/3.png")):
        paint(tmp_path / "a" / name, value)
    return folder


def run(*arguments: str) -> str:
    shown = CliRunner().invoke(typer_app, ["import", *arguments])
    if shown.exception:
        raise shown.exception
    return shown.output


def list_imports() -> list[str]:
    return sorted(path.name for path in Path("data/raw").iterdir())


def read_targets(folder: Path) -> dict[str, dict[str, int]]:
    """Return photo -> label -> target, as the pipeline reads them."""
    dataset = read_dataset(folder)
    labels = dataset.read_labels()
    digests = [entry.cells["sha256"] for entry in dataset.stored]
    targets = dataset.merge_targets(labels.targets, digests)
    rows = zip(*targets.values(), strict=True)
    return {
        name: dict(zip(targets, map(int, row), strict=True))
        for name, row in zip(dataset.name_photos(), rows, strict=True)
    }


def test_first_import_makes_a_folder_and_others_are_added(project: Path, tmp_path: Path) -> None:
    shown = run("../a")
    assert "\n3 photos in data/raw/001-a.zip: cat 2, dog 1\nSet data.raw in params.yaml" in shown
    assert "  dvc add data/raw\n" in shown
    assert read_all_params(project / "params.yaml").data.raw == "data/raw"
    before = (project / "data/raw/001-a.zip").read_bytes()

    # A new photo of a new label, a known photo under another name and label, and an unchanged one.
    paint(tmp_path / "My photos (2)/fox/9.png", 9)
    paint(tmp_path / "My photos (2)/dog/again.png", 1)
    paint(tmp_path / "My photos (2)/dog/3.png", 2)
    shown = run("../My photos (2)", "--add")
    assert "\n1 new, 2 already known, 0 without labels; the dataset now has 4\n" in shown
    assert "\nknown photos whose labels are updated: 2\n" in shown
    assert "lose a label" not in shown
    assert "note: labels that the dataset did not have, unknown for its other photos: fox" in shown
    assert "note: labels that the source does not have, unknown for its new photos: cat" in shown
    assert "\n3 photos in data/raw/002-My-photos-2.zip: dog 2, fox 1\nRun these" in shown
    assert shown.endswith("\nThen run `dvc repro`.\n")
    assert (project / "data/raw/001-a.zip").read_bytes() == before
    names = list_files(project / "data/raw/002-My-photos-2.zip")
    assert [name for name in names if name.startswith("images/")] == ["images/im3.png"]
    assert read_targets(project / "data/raw") == {
        "cat/1.png": {"cat": 1, "dog": 0, "fox": UNKNOWN},
        "cat/2.png": {"cat": 1, "dog": 1, "fox": 0},
        "dog/3.png": {"cat": 0, "dog": 1, "fox": 0},
        "fox/9.png": {"cat": UNKNOWN, "dog": 0, "fox": 1},
    }

    # A removed import takes its photos and labels with it.
    (project / "data/raw/002-My-photos-2.zip").unlink()
    assert [*read_targets(project / "data/raw")] == ["cat/1.png", "cat/2.png", "dog/3.png"]


def test_renamed_label_is_known_by_both_names(project: Path, tmp_path: Path) -> None:
    run("../a")
    (project / "data/labels.yaml").write_text(
        "rename: {dog: hound, hound: new, later: x}\nimply: {later2: [y]}\ndrop: [later3]\n"
    )
    for value, label in enumerate(("dog", "new"), start=9):
        paint(tmp_path / label / f"{label}/{value}.png", value)
        paint(tmp_path / label / f"cat/{value + 10}.png", value + 10)
        # A folder `new` would be questioned if it were not the name of a label.
        assert "note:" not in run(f"../{label}", "--add")
    # The photo that is a dog has the label already; the cats are compared as before.
    shutil.copytree(tmp_path / "a/dog", tmp_path / "b/hound")
    shutil.copytree(tmp_path / "a/cat", tmp_path / "b/cat")
    assert "Nothing was added" in run("../b", "--add")
    paint(tmp_path / "b/hound/1.png", 0)
    assert "\nknown photos whose labels are updated: 1\n" in run("../b", "--add")


def test_adding_the_same_photos_again_writes_nothing(project: Path) -> None:
    run("../a")
    shown = run("../a", "--add")
    assert "\n0 new, 3 already known, 0 without labels; the dataset now has 3\n" in shown
    assert shown.endswith("Nothing was added: the dataset has all these photos and labels.\n")
    assert list_imports() == ["001-a.zip"]


def test_labels_can_be_added_when_only_unlabelled_photos_are_left(tmp_path: Path) -> None:
    run("../a")
    paint(tmp_path / "b/4.png", 50)
    run("../b", "--add")
    Path("data/raw/001-a.zip").unlink()
    assert "the dataset now has 4\n" in run("../a", "--add")
    targets = read_targets(Path("data/raw"))
    assert targets["4.png"] == {"cat": UNKNOWN, "dog": UNKNOWN}
    assert targets["cat/1.png"] == {"cat": 1, "dog": 0}


def test_known_photos_keep_labels_that_the_source_does_not_have(tmp_path: Path) -> None:
    run("../a")
    write(tmp_path / "t.csv", "file,label\na/cat/1.png,fox\n")
    shown = run("../t.csv", "--add")
    assert "labels that the dataset did not have, unknown for its other photos: fox\n" in shown
    assert "the source does not have" not in shown
    assert read_targets(Path("data/raw"))["cat/1.png"] == {"cat": 1, "dog": 0, "fox": 1}


@pytest.mark.parametrize("source", ["new", "new/1.png", "table.csv"])
def test_photos_without_labels_can_only_be_added(tmp_path: Path, source: str) -> None:
    paint(tmp_path / "new/1.png", 50)
    paint(tmp_path / "new/2.png", 51)
    write(tmp_path / "table.csv", "file,label\nnew/1.png,?\nnew/2.png,?\n")
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for name in ("new/1.png", "new/2.png"):
            archive.write(tmp_path / name, name)
    source = source.replace("new/1.png", "new.zip")
    with pytest.raises(InputError, match=r"unknown format|no photo has a label"):
        run(f"../{source}")
    run("../a")
    shown = run(f"../{source}", "--add")
    assert "note: photos without a label, read as having unknown labels: 2\n" in shown
    assert "\n2 new, 0 already known, 2 without labels; the dataset now has 5\n" in shown
    targets = read_targets(Path("data/raw"))
    assert [targets[name] for name in targets if "/" not in name or "new" in name] == [
        {"cat": UNKNOWN, "dog": UNKNOWN}
    ] * 2


def test_folder_with_the_name_of_a_label_is_a_label(tmp_path: Path) -> None:
    paint(tmp_path / "a/train/0.png", 49)
    run("../a")
    paint(tmp_path / "new/train/dog/4.png", 50)
    assert "\n1 photos in data/raw/002-new.zip: dog 1\n" in run("../new", "--add")
    paint(tmp_path / "other/beach/5.png", 51)
    assert "photos without labels: 1\n" in run("../other", "--add")
    paint(tmp_path / "other/6.png", 52)
    with pytest.raises(
        InputError, match="may not be labels: beach: pass for each of them --folder beach=u"
    ):
        run("../other", "--add")
    assert "2 photos in data/raw/004-other.zip: beach 1\n" in run(
        "../other", "--add", "--folder", "beach=label"
    )
    paint(tmp_path / "numbered/train/images/im1.png", 53)
    write(tmp_path / "numbered/train/annotations/dog.txt", "1")
    assert "recognised as numbered photos: 1" in run("../numbered", "--add")


def test_notes_name_only_labels_that_become_unknown(tmp_path: Path) -> None:
    paint(tmp_path / "a/blurry/0.png", 49)
    paint(tmp_path / "a/owl/0.png", 48)
    run("../a")
    edits = "rename: {dog: hound}\ndrop: [blurry]\nabsent: [owl, fox]\n"
    write(Path("data/labels.yaml"), edits)
    paint(tmp_path / "b/hound/4.png", 50)
    paint(tmp_path / "b/fox/5.png", 51)
    shown = run("../b", "--add")
    assert "unknown for its other photos" not in shown
    assert "the source does not have, unknown for its new photos: cat\n" in shown
    assert "labels are updated" not in shown


def test_labels_of_a_table_without_photos_are_known_if_the_dataset_has_them(
    tmp_path: Path,
) -> None:
    run("../a")
    paint(tmp_path / "4.png", 50)
    paint(tmp_path / "5.png", 51)
    write(tmp_path / "t.csv", "file,cat,dog,owl\n4.png,0,1,0\n5.png,,0,0\n")
    shown = run("../t.csv", "--add")
    assert "skipped labels that no photo has: owl" in shown
    assert "empty cells of labels, read as unknown labels: 1" in shown
    targets = read_targets(Path("data/raw"))
    assert targets["4.png"] == {"cat": 0, "dog": 1}
    assert targets["5.png"] == {"cat": UNKNOWN, "dog": 0}


@pytest.mark.parametrize("name", ["unsorted", "Misc", "un-labelled", "NEW 2", "to do", "new_pics"])
def test_folder_that_is_probably_no_label_is_questioned(tmp_path: Path, name: str) -> None:
    paint(tmp_path / "a" / name / "7.png", 7)
    with pytest.raises(InputError) as error:
        run("../a")
    quoted = f"'{name}'" if " " in name else name
    for meaning in ("unknown", "none", "label"):
        assert f"--folder {quoted}={meaning}" in str(error.value)
    assert not Path("data").exists()
    targets = {}
    for meaning in ("unknown", "none", "label"):
        run("../a", "--folder", f"{name}={meaning}", "--to", meaning)
        targets[meaning] = read_targets(Path(meaning))[f"{name}/7.png"]
    assert targets == {
        "unknown": {"cat": UNKNOWN, "dog": UNKNOWN},
        "none": {"cat": 0, "dog": 0},
        "label": {"cat": 0, "dog": 0, name: 1},
    }


def test_photos_in_a_folder_without_labels_lack_all_labels_of_the_dataset(tmp_path: Path) -> None:
    run("../a")
    for value, name in enumerate(("b/none/7.png", "c/none/8.png", "c/cat/9.png", "c/10.png")):
        paint(tmp_path / name, 50 + value)
    for source in ("../b", "../c"):
        shown = run(source, "--add", "--folder", "none=none")
        assert "photos without a label, read as having none of the labels: 1\n" in shown
    targets = read_targets(Path("data/raw"))
    assert targets["none/7.png"] == targets["none/8.png"] == {"cat": 0, "dog": 0}
    assert targets["cat/9.png"] == {"cat": 1, "dog": UNKNOWN}
    assert targets["10.png"] == {"cat": UNKNOWN, "dog": UNKNOWN}


def test_several_folders_are_questioned_at_once_and_nested_ones_are_combined(
    tmp_path: Path,
) -> None:
    paint(tmp_path / "a/dog/misc/7.png", 7)
    paint(tmp_path / "a/none/8.png", 8)
    paint(tmp_path / "a/none/copy.png", 0)  # the bytes of cat/1.png
    with pytest.raises(InputError, match="may not be labels: misc, none: pass for each of them"):
        run("../a")
    shown = run("../a", "--folder", "misc=unknown", "--folder", "none=none")
    assert "photos without a label, read as having none of the labels: 1\n" in shown
    targets = read_targets(Path("data/raw"))
    assert targets["dog/misc/7.png"] == {"cat": UNKNOWN, "dog": 1}
    assert targets["none/8.png"] == {"cat": 0, "dog": 0}
    assert targets["cat/1.png"] == {"cat": 1, "dog": 0}
    # A label of the dataset is not questioned.
    paint(tmp_path / "b/none/1.png", 60)
    paint(tmp_path / "b/cat/1.png", 61)
    with pytest.raises(InputError, match="may not be labels: none"):
        run("../b", "--add")
    run("../b", "--add", "--folder", "none=label")
    paint(tmp_path / "b/none/2.png", 62)
    assert "1 new, 2 already known" in run("../b", "--add")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "cat"], "--folder cat: write NAME=unknown"),
        (["--folder", "cat=maybe"], "--folder cat=maybe: write NAME=unknown"),
        (["--folder", "owl=none"], "no folder in ../a has this name: choose from cat, dog"),
        (["--add"], r"data\.raw is the synthetic dataset.*import SOURCE` without --add"),
        (["--add", "--to", "gone"], "gone has no imports: omit --add"),
        (["--add", "--to", "empty"], "empty has no imports: omit --add"),
        (["--to", "params.yaml"], r"params\.yaml is neither a folder nor a \.zip"),
        (["--to", "."], r"\. contains other files, such as .*: pass a new folder"),
        (["--add", "--to", "."], r"\. is not a folder of imports: .* --to \.\./project-imports`"),
        (["--to", "full"], "full contains other files, such as notes.txt: pass a new folder"),
    ],
)
def test_wrong_options_are_refused(project: Path, arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    write(Path("full/notes.txt"), "mine")
    before = sorted(project.rglob("*"))
    with pytest.raises(InputError, match=message):
        run("../a", *arguments)
    assert [path for path in sorted(project.rglob("*")) if ".phototag" not in str(path)] == before


def test_incomplete_params_are_refused_before_anything_is_written(project: Path) -> None:
    write(project / "params.yaml", "seed: 0\n")
    with pytest.raises(InputError, match=r"params\.yaml: data is missing"):
        run("../a")
    assert not (project / "data").exists()


def test_second_import_without_add_names_both_options(tmp_path: Path) -> None:
    run("../a")
    message = "data.raw is already data/raw: to add SOURCE .* pass --add; .* another .* with --to"
    with pytest.raises(InputError, match=message):
        run("../a")
    with pytest.raises(InputError, match=r"data/raw already contains imports: .*--add --to data/r"):
        run("../a", "--to", "data/raw")
    run("../a", "--to", "others")
    with pytest.raises(InputError, match=r"data/raw already contains imports: .*--add --to data/r"):
        run("../a", "--to", "data/raw")
    # The process was killed before it wrote params.yaml.
    shutil.copy(SHIPPED_PARAMS, "params.yaml")
    with pytest.raises(InputError, match=r"data/raw already contains imports: .*--add --to data/r"):
        run("../a")
    assert "0 new, 3 already known" in run("../a", "--add", "--to", "data/raw")
    assert read_all_params(Path("params.yaml")).data.raw == "data/raw"


def test_photos_that_were_not_pulled_are_not_replaced(project: Path, tmp_path: Path) -> None:
    run("../a")
    write(project / "data/raw.dvc", "outs: 3\n")
    with pytest.raises(InputError, match="is already data/raw"):
        run("../a")
    pointer = "outs:\n- md5: 7b0a.dir\n  size: 9\n  nfiles: {}\n  path: raw\n"
    write(project / "data/raw.dvc", pointer.format(1))
    paint(tmp_path / "b/cat/8.png", 8)
    run("../b", "--add")
    write(project / "data/raw/.DS_Store", "")
    # git has the list of a colleague's import, but `dvc pull` has not run.
    write(project / "data/raw.dvc", pointer.format(3))
    paint(tmp_path / "b/cat/9.png", 9)
    with pytest.raises(InputError, match="data/raw: DVC tracks 3 files, but 2 are here: run `dvc "):
        run("../b", "--add")
    shutil.rmtree("data/raw")
    for options in ([], ["--add"]):
        with pytest.raises(InputError, match="data/raw: DVC tracks 3 files, but 0 are here: run `"):
            run("../a", *options)
    (project / "data/raw.dvc").unlink()
    run("../a")


def test_conversion_of_other_datasets_is_explained(tmp_path: Path) -> None:
    paint(tmp_path / "b/cat/8.png", 8)
    run("../a", "--to", "data/raw.zip")
    shutil.unpack_archive("data/raw.zip", "data/plain")
    shutil.copy("data/raw.zip", tmp_path / "course.zip")
    for raw in ("data/raw.zip", "data/plain", "../course.zip"):
        with pytest.raises(InputError, match=f"{raw} is not a folder of imports: run") as error:
            run("../b", "--add", "--to", raw)
        first = str(error.value).split("`")[1].split()
        new = first[-1]
        assert first == ["phototag", "import", raw, "--to", new]
        run(*first[2:])
        assert [*read_targets(Path(new))] == ["cat/1.png", "cat/2.png", "dog/3.png"]
        assert "now has 4\n" in run("../b", "--add")


@pytest.mark.parametrize("name", ["ö ü", "x\n", "...", "a" * 200, "photos.v2"])
def test_name_of_the_zip_comes_from_the_source(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").rename(tmp_path / name)
    run(f"../{name}")
    (found,) = Path("data/raw").iterdir()
    expected = {"ö ü": "ö-ü", "x\n": "x", "...": "photos", "a" * 200: "a" * 60}
    assert found.name == f"001-{expected.get(name, name)}.zip"
    Path("data/raw", found.name).rename("data/raw/1007-x.zip")
    paint(tmp_path / "b/cat/8.png", 8)
    assert "data/raw/1008-b.zip" in run("../b", "--add")


def count_calls(monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, fatal: int) -> None:
    """Kill this process, as `kill -9` does, at one of the calls of a function."""
    original, calls = getattr(holder, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    monkeypatch.setattr(holder, name, call)


@pytest.mark.parametrize(
    ("holder", "name", "fatal"),
    [
        (zipfile.ZipFile, "writestr", 1),
        (zipfile.ZipFile, "writestr", 4),
        (zipfile.ZipFile, "close", 1),
        (Path, "replace", 1),
    ],
)
def test_killed_import_leaves_the_dataset_as_it_was(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    holder: Any,
    name: str,
    fatal: int,
) -> None:
    run("../a")
    for value in range(4):
        paint(tmp_path / f"b/cat/{value}.png", 100 + value)
        paint(tmp_path / f"b/dog/{value}.png", 200 + value)
    before = read_targets(project / "data/raw")
    child = os.fork()
    if child == 0:
        count_calls(monkeypatch, holder, name, fatal)
        run("../b", "--add")
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (unfinished,) = [name for name in list_imports() if name != "001-a.zip"]
    assert unfinished.startswith(".")
    assert read_targets(project / "data/raw") == before
    # The next import, of another source, removes the unfinished file.
    paint(tmp_path / "c/cat/1.png", 50)
    paint(tmp_path / "c/dog/1.png", 51)
    assert "the dataset now has 5\n" in run("../c", "--add")
    assert list_imports() == ["001-a.zip", "002-c.zip"]


def test_two_imports_at_once_are_both_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("../a")
    for value, folder in enumerate("bc"):
        paint(tmp_path / folder / "cat/1.png", 100 + value)
        paint(tmp_path / folder / "dog/1.png", 200 + value)
    waits, threads = Event(), list[Thread]()
    read_source = formats.read_source

    def read(*arguments: Any) -> Any:
        if not threads:
            threads.append(Thread(target=import_, args=(Path("../c"), True)))
            threads[0].start()
            assert waits.wait(10)  # the second import waits for the first
        return read_source(*arguments)

    monkeypatch.setattr(additions, "read_source", read)
    monkeypatch.setattr(processes, "print", lambda *_, **__: waits.set(), raising=False)
    import_(Path("../b"), True)
    threads[0].join()
    assert list_imports() == ["001-a.zip", "002-b.zip", "003-c.zip"]
    assert len(read_targets(Path("data/raw"))) == 7


def test_photos_of_zips_without_hashes_are_known(project: Path) -> None:
    """A zip that another program wrote, or that an earlier version of phototag wrote."""
    run("../a", "--to", "old.zip")
    Path("data/raw").mkdir(parents=True)
    with zipfile.ZipFile("data/raw/1.zip", "w") as archive:
        for name in list_files(Path("old.zip")):
            if name != "sources.csv":
                archive.writestr(f"train/{name}", read_file(Path("old.zip"), name))
    assert "0 new, 3 already known" in run("../a", "--add", "--to", "data/raw")
    names = [*read_dataset(Path("data/raw")).name_photos()]
    assert names == [f"train/images/im{number}.png" for number in (1, 2, 3)]


def test_sources_list_paths_inside_a_zip(tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "a")
    run("../a.zip")
    table = read_file(Path("data/raw/001-a.zip"), "sources.csv").decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["source"] for row in rows] == ["cat/1.png", "cat/2.png", "dog/3.png"]
    assert np.unique([len(row["sha256"]) for row in rows]).tolist() == [64]


def test_keywords_can_be_added_and_ignored(tmp_path: Path) -> None:
    """Labels of the dataset that no new photo has are absent if a missing keyword means so."""
    run("../a")
    for value, name in enumerate(("4.png", "5.png", "6.png")):
        paint(tmp_path / "b" / name, 50 + value)
    write(tmp_path / "b/4.xmp", list_keywords("dog"))
    write(tmp_path / "b/6.xmp", list_keywords("owl"))
    with pytest.raises(InputError, match="pass --missing absent"):
        run("../b", "--add")
    options = ["--missing", "absent-if-tagged", "--min-photos", "2"]
    shown = run("../b", "--add", *options)
    assert "the source does not have" not in shown
    targets = read_targets(Path("data/raw"))
    assert [targets[name] for name in ("4.png", "5.png", "6.png")] == [
        {"cat": 0, "dog": 1},
        {"cat": UNKNOWN, "dog": UNKNOWN},
        {"cat": 0, "dog": 0},
    ]
    # A missing keyword counts like a label file without the photo, which is reported.
    (Path("data/raw/002-b.zip")).unlink()
    paint(tmp_path / "b/1.png", 1)
    shown = run("../b", "--add", "--missing", "absent", "--min-photos", "1")
    assert "\nknown photos that lose a label: cat 1\n" in shown
    assert read_targets(Path("data/raw"))["cat/2.png"] == {"cat": 0, "dog": 0, "owl": 0}
    assert shown.count("cat 0") == 0
    assert ": dog 1, owl 1\n" in shown
    (tmp_path / "b/1.png").unlink()
    (Path("data/raw/002-b.zip")).unlink()
    assert "photos without labels: 3\n" in run("../b", "--add", "--as", "folders")
