from pathlib import Path

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.verification.labels import (
    find_invalid_names,
    image_number,
    parse_label_file,
    read_labels,
)
from phototag.verification.problems import Problem


def write_labels(folder: Path, files: dict[str, bytes], place: str = "annotations") -> list[str]:
    (folder / place).mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / place / name).write_bytes(data)
    return [f"{place}/{name}" for name in files]


def describe(problems: list[Problem]) -> list[str]:
    return [f"{problem.place} {problem.text} ({problem.action})" for problem in problems]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("images/im12.jpg", 12),
        ("im007.PNG", 7),
        ("im0.webp", 0),
        ("images/im3/cat.jpg", None),
        ("im3.jpg.bak", None),
        ("im-3.jpg", None),
        ("im٣.jpg", None),
        ("im3", None),
        (f"im{'1' * 5000}.jpg", None),
    ],
)
def test_image_number_is_read_from_names_of_the_form_imn(name: str, number: int | None) -> None:
    assert image_number(name) == number


def test_invalid_names_are_found_with_the_reason() -> None:
    names = ["im2.jpg", "cat.jpg", "a/im7.jpg", "a/im8.jpg", "b/im007.png"]
    assert find_invalid_names(names) == {
        "cat.jpg": "wrong name: expected imN.jpg with a number N",
        "a/im7.jpg": "same number: 2 files have the number 7",
        "b/im007.png": "same number: 2 files have the number 7",
    }


@pytest.mark.parametrize(
    ("data", "lines", "problems"),
    [
        (b"5\n12\n7\n", {5: 1, 12: 2, 7: 3}, []),
        (b"5\n12\n7", {5: 1, 12: 2, 7: 3}, []),
        (b"\xef\xbb\xbf5\n", {5: 1}, []),
        (b"5\r\n6\r\n", {5: 1, 6: 2}, []),
        (b"5\r6\r", {5: 1, 6: 2}, []),
        (b"5\n\n  12 \n\t\n7\n", {5: 1, 12: 3, 7: 5}, []),
        (b"1\n5\n2\n05\n", {1: 1, 5: 2, 2: 3}, []),
        (b"", {}, []),
        (b"\xef\xbb\xbf\n", {}, []),
        ("5\n".encode("utf-16-le"), {}, ["cat.txt:1 not an image number: '5\\x00' (rejected)",
                                        "cat.txt:2 not an image number: '\\x00' (rejected)"]),
        ("\u0665\n5.0\n1".encode(), {1: 3}, ["cat.txt:1 not an image number: '\u0665' (rejected)",
                                            "cat.txt:2 not an image number: '5.0' (rejected)"]),
        (b"1\n\xff\n", {1: 1}, ["cat.txt:2 not an image number: '\ufffd' (rejected)"]),
        (b"1\n5 6\n", {1: 1}, ["cat.txt:2 not an image number: '5 6' (rejected)"]),
        (b"x" * 50 + b"\n1\n", {1: 2},
         [f"cat.txt:1 not an image number: '{'x' * 40}' (rejected)"]),
    ],
)  # fmt: skip
def test_label_file_is_parsed(data: bytes, lines: dict[int, int], problems: list[str]) -> None:
    parsed, found = parse_label_file(data, "cat.txt")
    assert parsed == lines
    assert describe(found) == problems


def test_labels_are_sorted_and_photos_without_a_number_carry_none(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"tree.txt": b"3\n1\n", "empty.txt": b"", "baby.txt": b"2\n3"})
    labels = read_labels(tmp_path, files, ["im3.jpg", "cat.jpg", "im1.jpg", "im2.jpg"])
    assert list(labels.targets) == ["baby", "empty", "tree"]
    assert {column.dtype for column in labels.targets.values()} == {np.dtype(np.int8)}
    assert labels.targets["baby"].tolist() == [1, 0, 0, 1]
    assert labels.targets["empty"].tolist() == [0, 0, 0, 0]
    assert labels.targets["tree"].tolist() == [1, 0, 1, 0]
    assert labels.num_lines == 4


def test_number_without_a_photo_is_rejected_with_file_and_line(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"baby.txt": b"1\n\n9\n"})
    labels = read_labels(tmp_path, files, ["im1.jpg"])
    assert describe(labels.problems)[-1] == "annotations/baby.txt:3 no such image: im9 (rejected)"
    assert labels.num_lines == 2


def test_other_files_and_unused_labels_are_noted(tmp_path: Path) -> None:
    (tmp_path / "annotations/old").mkdir(parents=True)
    files = write_labels(
        tmp_path,
        {"cat.txt": b"1\n", "cow.txt": b"1\n", "notes.md": b"", "old/cat.txt": b"1\n",
         },
    )  # fmt: skip
    labels = read_labels(tmp_path, files, ["im1.jpg"], ["cat"])
    assert list(labels.targets) == ["cat"]
    assert sorted(describe(labels.problems)) == [
        "annotations/cow.txt unused label file: not in data.labels (noted)",
        "annotations/notes.md not a label file: ignored (noted)",
        "annotations/old/cat.txt not a label file: ignored (noted)",
    ]


def test_unreadable_label_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"cat.txt": b"1\n"})
    (tmp_path / "annotations/cat.txt").unlink()
    (tmp_path / "annotations/cat.txt").symlink_to("gone.txt")
    with pytest.raises(InputError, match=r"annotations/cat\.txt: broken link"):
        read_labels(tmp_path, files, ["im1.jpg"])


def test_labels_are_compared_in_composed_unicode(tmp_path: Path) -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    for file in (composed, decomposed):
        (tmp_path / file).mkdir(parents=True)
        files = write_labels(tmp_path / file, {f"{file}.txt": b"1\n"})
        labels = read_labels(tmp_path / file, files, ["im1.jpg"])
        assert list(labels.targets) == [composed]
    both = write_labels(tmp_path, {f"{composed}.txt": b"1\n", f"{decomposed}.txt": b"1\n"})
    with pytest.raises(InputError, match="are label files of the same label: merge them"):
        read_labels(tmp_path, both, ["im1.jpg"])


def test_capital_letters_in_paths_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/Cat.TXT").write_bytes(b"1\n")
    labels = read_labels(tmp_path, ["Annotations/Cat.TXT"], ["im1.jpg"])
    assert {label: column.tolist() for label, column in labels.targets.items()} == {"Cat": [1]}


PHOTOS = ["im1.jpg", "im2.jpg", "im3.jpg"]


def test_unknown_files_give_unknown_targets(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"cat.txt": b"1\n", "dog.txt": b"", "sea.txt": b"2\n"})
    unknown = {"cat.txt": b"3\n", "dog.txt": b"2\n3\n9\nx\n", "sea.txt": b"", "cow.txt": b"1\n"}
    doubts = write_labels(tmp_path, unknown, "unknown")
    wanted = ["cat", "dog", "sea"]
    labels = read_labels(tmp_path, files, PHOTOS, wanted, doubts)
    assert {label: column.tolist() for label, column in labels.targets.items()} == {
        "cat": [1, 0, UNKNOWN],
        "dog": [0, UNKNOWN, UNKNOWN],
        "sea": [0, 1, 0],
    }
    assert labels.num_lines == 1 + 1 + 1 + 4
    assert describe(labels.problems) == [
        "unknown/cow.txt unused label file: not in data.labels (noted)",
        "unknown/dog.txt:4 not an image number: 'x' (rejected)",
        "unknown/dog.txt:3 no such image: im9 (rejected)",
    ]
    assert "im9" not in str(read_labels(tmp_path, files, PHOTOS, wanted).problems)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("cat.txt", b"3\n\n2\n", r"unknown/cat\.txt:3: im2 is also on line 1 of "
         r"annotations/cat\.txt: remove it from one of the files"),
        ("dog.txt", b"1\n", r"unknown/dog\.txt requires annotations/dog\.txt: add it"),
    ],
)  # fmt: skip
def test_unknown_file_that_contradicts_the_labels_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    files = write_labels(tmp_path, {"cat.txt": b"2\n", "sea.txt": b""})
    doubts = write_labels(tmp_path, {name: data}, "unknown")
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path, files, PHOTOS, unknown=doubts)
