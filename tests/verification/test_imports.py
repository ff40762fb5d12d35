"""Folders of imports: order, names and targets of the photos."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.verification.imports import read_dataset


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def write_import(
    path: Path,
    photos: Sequence[tuple[str, str, bool]],
    labels: Mapping[str, Mapping[int, int]],
    sources: bool = True,
) -> None:
    """Write a zip: photos as (path in the source, content, stored), and label -> row -> target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, (_, content, stored) in enumerate(photos, start=1):
            if stored:
                archive.writestr(f"images/im{number}.jpg", content)
        for label, targets in labels.items():
            for folder, value in (("annotations", 1), ("unknown", UNKNOWN)):
                lines = [f"{row + 1}\n" for row, target in targets.items() if target == value]
                if lines or folder == "annotations":
                    archive.writestr(f"{folder}/{label}.txt", "".join(lines))
        rows = [
            f"im{number}.jpg,{name},{digest(content)}\n"
            for number, (name, content, _) in enumerate(photos, start=1)
        ]
        if sources:
            archive.writestr("sources.csv", "file,source,sha256\n" + "".join(rows))


def list_names(folder: Path) -> list[str]:
    return read_dataset(folder).name_photos()


def test_imports_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10-c", "2-b", "x", "001-a"):
        write_import(tmp_path / f"{name}.zip", [(f"{name}.jpg", name, True)], {"cat": {0: 1}})
    write_import(tmp_path / ".003-d.77.tmp.zip", [("d.jpg", "d", True)], {})
    (tmp_path / ".gitignore").write_text("/raw\n")
    (tmp_path / ".004-e.77.tmp.zip").write_bytes(b"half a zip")
    assert list_names(tmp_path) == ["001-a.jpg", "2-b.jpg", "10-c.jpg", "x.jpg"]
    dataset = read_dataset(tmp_path)
    assert [entry.origin for entry in dataset.stored] == ["001-a", "2-b", "10-c", "x"]
    assert dataset.stored[0].name == "001-a.zip/images/im1.jpg"
    assert dataset.read_labels().problems == []


def test_photos_are_named_after_their_sources(tmp_path: Path) -> None:
    first = [("dog/a.jpg", "1", True), ("b.jpg", "2", True), ("", "3", True), ("b.jpg", "4", True)]
    write_import(tmp_path / "raw/1-x.zip", first, {"cat": {0: 1}})
    write_import(tmp_path / "raw/2-y.zip", [("dog/a.jpg", "5", True)], {"cat": {0: 1}})
    write_import(tmp_path / "raw/3-z.zip", [("", "6", True), ("", "7", True)], {}, sources=False)
    write_import(tmp_path / "raw/4.zip", [("images/im1.jpg", "8", True)], {})
    with zipfile.ZipFile(tmp_path / "raw/3-z.zip", "a") as archive:
        archive.writestr("annotations/cat.txt", "1\n")
    assert list_names(tmp_path / "raw") == [
        "dog/a.jpg",
        "b.jpg",
        "images/im3.jpg",
        "1-x/b.jpg",
        "2-y/dog/a.jpg",
        "images/im1.jpg",
        "images/im2.jpg",
        "4/images/im1.jpg",
    ]
    # A single zip is a dataset without imports.
    dataset = read_dataset(tmp_path / "raw/1-x.zip")
    assert dataset.name_photos() == ["dog/a.jpg", "b.jpg", "images/im3.jpg", "1-x/b.jpg"]
    assert {entry.origin for entry in dataset.entries} == {""}
    assert dataset.stored[0].name == "images/im1.jpg"


def test_plain_dataset_may_contain_zips_but_a_folder_of_imports_only_imports(
    tmp_path: Path,
) -> None:
    write_import(tmp_path / "course.zip", [("a.jpg", "a", True)], {"cat": {0: 1}})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt is not an import, and .* may contain only"):
        read_dataset(tmp_path)
    for name in ("images/im5.jpg", "annotations/cat.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("5")
    assert list_names(tmp_path) == ["images/im5.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no zip", r"2\.zip is neither a folder nor a valid zip"), (None, r"2\.zip holds no folder")],
)
def test_broken_import_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    write_import(tmp_path / "1.zip", [("a.jpg", "a", True)], {"cat": {0: 1}})
    if content is None:
        with zipfile.ZipFile(tmp_path / "2.zip", "w") as archive:
            archive.writestr("dog/1.jpg", b"")
    else:
        (tmp_path / "2.zip").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_last_import_that_knows_a_target_decides(tmp_path: Path, seed: int) -> None:
    """Compare with the targets of each photo, collected import by import."""
    rng = np.random.default_rng(seed)
    contents = [f"photo {index}" for index in range(12)]
    expected: dict[str, dict[str, int]] = {}
    for number in range(4):
        listed = rng.permutation(12)[: rng.integers(3, 9)].tolist()
        labels = [label for label in ("cat", "dog", "fox") if number == 0 or rng.random() < 0.6]
        targets = {
            label: {row: int(rng.choice([0, 1, UNKNOWN])) for row in range(len(listed))}
            for label in labels
        }
        photos = [(contents[i], contents[i], contents[i] not in expected) for i in listed]
        write_import(tmp_path / f"{number}.zip", photos, targets)
        for row, index in enumerate(listed):
            found = expected.setdefault(contents[index], {})
            for label in labels:
                if targets[label][row] != UNKNOWN:
                    found[label] = targets[label][row]
    dataset = read_dataset(tmp_path)
    read = dataset.read_labels()
    assert read.problems == []
    digests = [digest(entry.cells["source"]) for entry in dataset.stored]
    merged = dataset.merge_targets(read.targets, digests)
    assert sorted(merged) == ["cat", "dog", "fox"]
    for row, name in enumerate(dataset.name_photos()):
        found = {label: int(column[row]) for label, column in merged.items()}
        known = {label: value for label, value in found.items() if value != UNKNOWN}
        assert known == expected.pop(name)
    assert expected == {}
    assert dataset.list_removed(digests) == []


def test_copies_within_an_import_keep_their_labels(tmp_path: Path) -> None:
    copies = [("a.jpg", "same", True), ("b.jpg", "same", True)]
    write_import(tmp_path / "1.zip", copies, {"cat": {0: 1, 1: 0}, "dog": {0: 1, 1: UNKNOWN}})
    write_import(tmp_path / "2.zip", [("c.jpg", "same", False)], {"owl": {0: 1}})
    dataset = read_dataset(tmp_path)
    targets = dataset.merge_targets(dataset.read_labels().targets, [digest("same")] * 2)
    assert {label: column.tolist() for label, column in targets.items()} == {
        "cat": [1, 0],
        "dog": [1, UNKNOWN],
        "owl": [1, 1],
    }


def test_photo_of_a_removed_import_is_reported(tmp_path: Path) -> None:
    write_import(tmp_path / "2.zip", [("a.jpg", "a", False), ("b.jpg", "b", True)], {"cat": {0: 1}})
    dataset = read_dataset(tmp_path)
    assert dataset.name_photos() == ["b.jpg"]
    labels = dataset.read_labels()
    digests = [digest("b")]
    (problem,) = dataset.list_removed(digests)
    assert problem.text == "photo is in no import: a.jpg"
    assert (problem.place, problem.action) == ("2.zip/images/im1.jpg", "noted")
    assert labels.problems == []
    assert dataset.merge_targets(labels.targets, digests)["cat"].tolist() == [0]


def test_labels_of_all_imports_can_be_chosen(tmp_path: Path) -> None:
    write_import(tmp_path / "1.zip", [("a.jpg", "a", True)], {"cat": {0: 1}})
    write_import(
        tmp_path / "2.zip", [("b.jpg", "b", True)], {"e\u0301te\u0301": {0: 1}, "fox": {0: 1}}
    )
    labels = read_dataset(tmp_path).read_labels(["e\u0301te\u0301", "cat"])
    assert {label: column.tolist() for label, column in labels.targets.items()} == {
        "cat": [1, UNKNOWN],
        "\u00e9t\u00e9": [UNKNOWN, 1],
    }
    assert [problem.place for problem in labels.problems] == ["2.zip/annotations/fox.txt"]
    with pytest.raises(
        InputError, match=r"no annotations/cats\.txt: .*cat, fox, été \(did you mean cat\?"
    ):
        read_dataset(tmp_path).read_labels(["cat", "cats"])


def test_dataset_without_label_files_is_refused(tmp_path: Path) -> None:
    write_import(tmp_path / "1.zip", [("a.jpg", "a", True)], {})
    with pytest.raises(InputError, match="has no label files"):
        read_dataset(tmp_path).read_labels()
