import re
from pathlib import Path

import numpy as np
import pytest

from phototag.errors import InputError
from phototag.labels import image_number, number_images, parse_annotation, read_targets


def write_labels(folder: Path, files: dict[str, bytes]) -> list[str]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(files)


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
    ],
)
def test_only_a_name_of_im_and_a_number_has_a_number(name: str, number: int | None) -> None:
    assert image_number(name) == number


def test_two_files_of_one_number_are_refused() -> None:
    assert number_images(["im2.jpg", "cat.jpg", "im1.png", "dog.jpg"]) == [2, None, 1, None]
    with pytest.raises(InputError, match=r"a/im7\.jpg and a/im007\.png have the same number"):
        number_images(["a/im7.jpg", "a/im8.jpg", "a/im007.png"])


def test_lines_are_numbered_from_one_and_blank_ones_count() -> None:
    assert parse_annotation("5\n\n  12 \r\n\t\n7", "baby.txt") == {5: 1, 12: 3, 7: 5}


@pytest.mark.parametrize("entry", ["im5", "5.0", "-5", "5 6", "\u0665", "²"])
def test_a_line_that_is_no_number_is_told_by_file_and_line(entry: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"baby.txt:3: {entry!r} is not")):
        parse_annotation(f"1\n\n{entry}\n", "baby.txt")


def test_a_number_that_stands_twice_is_told_with_both_lines() -> None:
    with pytest.raises(InputError, match=r"^baby\.txt:4: image 5 stands on line 2 already$"):
        parse_annotation("1\n5\n2\n05\n", "baby.txt")


def test_columns_are_sorted_and_survive_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    names = write_labels(
        tmp_path,
        {"tree.txt": b"\xef\xbb\xbf3\r\n\r\n1\r\n", "empty.txt": b"", "baby.txt": b"\n2\n3"},
    )
    columns = read_targets(tmp_path, names, [3, None, 1, 2])
    assert list(columns) == ["baby", "empty", "tree"]
    assert {column.dtype for column in columns.values()} == {np.dtype(np.uint8)}
    assert columns["baby"].tolist() == [1, 0, 0, 1]
    assert columns["empty"].tolist() == [0, 0, 0, 0]
    assert columns["tree"].tolist() == [1, 0, 1, 0]


def test_a_number_without_an_image_is_told_by_file_and_line(tmp_path: Path) -> None:
    names = write_labels(tmp_path, {"baby.txt": b"1\n\n9\n"})
    with pytest.raises(InputError, match=r"^baby\.txt:3: there is no image im9"):
        read_targets(tmp_path, names, [1, 2, None])


def test_a_source_without_label_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no label file"):
        read_targets(tmp_path, [], [1])
