from pathlib import Path

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.verification.labels import image_number, parse_annotation, read_labels, refuse_names
from phototag.verification.problems import Problem


def write_labels(folder: Path, files: dict[str, bytes], place: str = "annotations") -> list[str]:
    (folder / place).mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / place / name).write_bytes(data)
    return [f"{place}/{name}" for name in files]


def told(problems: list[Problem]) -> list[str]:
    return [f"{problem.place} {problem.text} ({problem.action})" for problem in problems]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("images/im12.jpg", 12),
        ("im007.PNG", 7),
        ("im0.webp", 0),
        ("images/im3/cat.jpg", None),
        ("img3.jpg", None),
        ("im3.jpg.bak", None),
        ("im-3.jpg", None),
        ("im٣.jpg", None),
        ("im3", None),
        ("._im3.jpg", None),
        (f"im{'1' * 5000}.jpg", None),
    ],
)
def test_only_a_name_of_im_and_a_number_has_a_number(name: str, number: int | None) -> None:
    assert image_number(name) == number


def test_names_that_cannot_be_taken_are_refused_with_the_reason() -> None:
    names = ["im2.jpg", "cat.jpg", "a/im7.jpg", ".DS_Store", "a/im8.jpg", "b/im007.png"]
    assert refuse_names(names) == {
        "cat.jpg": "wrong name: not imN.jpg, with a number N",
        ".DS_Store": "left by the operating system",
        "a/im7.jpg": "same number: as another file",
        "b/im007.png": "same number: as a/im7.jpg",
    }


@pytest.mark.parametrize(
    ("data", "lines", "problems"),
    [
        (b"5\n12\n7\n", {5: 1, 12: 2, 7: 3}, []),
        (b"5\n12\n7", {5: 1, 12: 2, 7: 3}, []),
        (b"\xef\xbb\xbf5\n", {5: 1}, ["cat.txt byte order mark (noted)"]),
        (b"5\r\n6\r\n", {5: 1, 6: 2}, ["cat.txt Windows line ends (noted)"]),
        (b"5\r6\r", {5: 1, 6: 2}, ["cat.txt Windows line ends (noted)"]),
        (b"5\n\n  12 \n\t\n7\n", {5: 1, 12: 3, 7: 5}, ["cat.txt blank lines: 2 (noted)"]),
        (b"1\n5\n2\n05\n", {1: 1, 5: 2, 2: 3},
         ["cat.txt:4 the same number twice: 5, as on line 2 (noted)"]),
        (b"1\n\x0c2\n", {1: 1, 2: 2}, []),
        (b"1\n\xff\n", {1: 1}, ["cat.txt:2 not an image number: '\ufffd' (rejected)"]),
        (b"1\n5 6\n", {1: 1}, ["cat.txt:2 not an image number: '5 6' (rejected)"]),
        (b"x" * 50 + b"\n1\n", {1: 2},
         [f"cat.txt:1 not an image number: '{'x' * 40}...' (rejected)"]),
    ],
)  # fmt: skip
def test_what_a_label_file_may_hold(
    data: bytes, lines: dict[int, int], problems: list[str]
) -> None:
    parsed, found = parse_annotation(data, "cat.txt")
    assert parsed == lines
    assert told(found) == problems


@pytest.mark.parametrize("entry", ["im5", "5.0", "-5", "5 6", "\u0665", "²", "9" * 5000, "5,"])
def test_a_line_that_is_no_number_is_told_by_file_and_line(entry: str) -> None:
    lines, problems = parse_annotation(f"1\n\n{entry}\n".encode(), "baby.txt")
    assert lines == {1: 1}
    assert problems[0].place == "baby.txt:3"
    assert (problems[0].kind, problems[0].action) == ("not an image number", "rejected")


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_a_label_without_a_photo(data: bytes, tmp_path: Path) -> None:
    assert parse_annotation(data, "cat.txt")[0] == {}
    labels = read_labels(tmp_path, write_labels(tmp_path, {"cat.txt": data}), ["im1.jpg"])
    assert labels.problems[-1].kind == "a label without a photo"
    assert labels.targets["cat"].tolist() == [0]


def test_utf16_is_no_text_of_ours() -> None:
    lines, problems = parse_annotation("5\n6\n".encode("utf-16"), "cat.txt")
    assert lines == {}
    assert sum(problem.action == "rejected" for problem in problems) == 3


def test_columns_are_sorted_and_photos_without_a_number_carry_nothing(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"tree.txt": b"3\n1\n", "empty.txt": b"", "baby.txt": b"2\n3"})
    labels = read_labels(tmp_path, files, ["im3.jpg", "cat.jpg", "im1.jpg", "im2.jpg"])
    assert list(labels.targets) == ["baby", "empty", "tree"]
    assert {column.dtype for column in labels.targets.values()} == {np.dtype(np.int8)}
    assert labels.targets["baby"].tolist() == [1, 0, 0, 1]
    assert labels.targets["empty"].tolist() == [0, 0, 0, 0]
    assert labels.targets["tree"].tolist() == [1, 0, 1, 0]
    assert labels.num_lines == 4


def test_a_number_without_an_image_is_told_by_file_and_line(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"baby.txt": b"1\n\n9\n"})
    labels = read_labels(tmp_path, files, ["im1.jpg"])
    assert told(labels.problems)[-1] == "annotations/baby.txt:3 no such image: im9 (rejected)"
    assert labels.num_lines == 2


def test_other_files_and_unknown_classes_are_passed_over_and_told(tmp_path: Path) -> None:
    (tmp_path / "annotations/old").mkdir(parents=True)
    files = write_labels(
        tmp_path,
        {"cat.txt": b"1\n", "cow.txt": b"1\n", "notes.md": b"", "old/cat.txt": b"1\n",
         ".cat.txt": b"1\n"},
    )  # fmt: skip
    labels = read_labels(tmp_path, files, ["im1.jpg"], ["cat"])
    assert list(labels.targets) == ["cat"]
    assert sorted(told(labels.problems)) == [
        "annotations/.cat.txt not a label file: passed over (noted)",
        "annotations/cow.txt an unknown class: not in data.labels (noted)",
        "annotations/notes.md not a label file: passed over (noted)",
        "annotations/old/cat.txt not a label file: passed over (noted)",
    ]


def test_a_missing_class_file_and_none_at_all_are_refused(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"cat.txt": b"1\n"})
    with pytest.raises(InputError, match=r"has no annotations/dog\.txt: add it, or take 'dog' out"):
        read_labels(tmp_path, files, ["im1.jpg"], ["cat", "dog"])
    with pytest.raises(InputError, match="has no label file"):
        read_labels(tmp_path, [], ["im1.jpg"])


def test_a_label_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    files = write_labels(tmp_path, {"cat.txt": b"1\n"})
    (tmp_path / "annotations/cat.txt").unlink()
    (tmp_path / "annotations/cat.txt").symlink_to("gone.txt")
    with pytest.raises(InputError, match=r"annotations/cat\.txt: a broken link"):
        read_labels(tmp_path, files, ["im1.jpg"])


def test_labels_are_compared_in_composed_unicode(tmp_path: Path) -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    for file, wanted in ((decomposed, composed), (composed, decomposed), (decomposed, "")):
        (tmp_path / file).mkdir(parents=True, exist_ok=True)
        files = write_labels(tmp_path / file, {f"{file}.txt": b"1\n"})
        labels = read_labels(tmp_path / file, files, ["im1.jpg"], [wanted] if wanted else [])
        assert list(labels.targets) == [composed]
    both = write_labels(tmp_path, {f"{composed}.txt": b"1\n", f"{decomposed}.txt": b"1\n"})
    with pytest.raises(InputError, match="are label files of one name: join them"):
        read_labels(tmp_path, both, ["im1.jpg"])


def test_capitals_in_the_place_of_a_label_file_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/Cat.TXT").write_bytes(b"1\n")
    labels = read_labels(tmp_path, ["Annotations/Cat.TXT"], ["im1.jpg"])
    assert {label: column.tolist() for label, column in labels.targets.items()} == {"Cat": [1]}


def test_texts_about_single_photos_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "annotations/meta/tags").mkdir(parents=True)
    names = [f"{folder}tags{n}.txt" for folder in ("", "meta/tags/") for n in range(1, 4)]
    names += ["im1.txt", "License12.txt"]
    files = write_labels(
        tmp_path, {"tags.txt": b"1\n", "exif.txt": b""} | dict.fromkeys(names, b"1")
    )
    labels = read_labels(tmp_path, files, ["im1.jpg"])
    assert list(labels.targets) == ["exif", "tags"]
    assert told(labels.problems)[0].endswith("texts about single photos: 8 passed over (noted)")
    assert list(read_labels(tmp_path, files, ["im1.jpg"], ["tags1"]).targets) == ["tags1"]


PHOTOS = ["im1.jpg", "im2.jpg", "im3.jpg"]


def test_what_is_not_known_is_a_third_value(tmp_path: Path) -> None:
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
    assert told(labels.problems) == [
        "unknown/cow.txt an unknown class: not in data.labels (noted)",
        "annotations/dog.txt a label without a photo (noted)",
        "unknown/dog.txt:4 not an image number: 'x' (rejected)",
        "unknown/dog.txt:3 no such image: im9 (rejected)",
    ]
    assert "im9" not in str(read_labels(tmp_path, files, PHOTOS, wanted).problems)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("cat.txt", b"3\n\n2\n", r"unknown/cat\.txt:3: im2 stands in annotations/cat\.txt too, on "
         r"line 1: either it is known to carry 'cat' or it is not; take it out of one of them"),
        ("dog.txt", b"1\n", r"unknown/dog\.txt has no annotations/dog\.txt beside it: add that"),
        ("sea.txt", b"1\n2\n3\n", r"unknown/sea\.txt names every photo, so that 'sea' is known"),
    ],
)  # fmt: skip
def test_what_is_not_known_may_not_contradict_what_is(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    files = write_labels(tmp_path, {"cat.txt": b"2\n", "sea.txt": b""})
    doubts = write_labels(tmp_path, {name: data}, "unknown")
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path, files, PHOTOS, unknown=doubts)
