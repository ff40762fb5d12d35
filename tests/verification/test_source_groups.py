from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.verification.source_groups import read_source_groups

NAMES = ["images/im1.jpg", "images/im2.jpg", "images/im3.jpg"]


def read(folder: Path, text: str) -> tuple[list[str], list[str]]:
    (folder / "sources.csv").write_text(text, encoding="utf-8")
    groups, problems = read_source_groups(folder, "sources.csv", NAMES)
    return groups, [f"{problem.place} {problem.text}" for problem in problems]


def test_groups_come_in_the_order_of_the_photos(tmp_path: Path) -> None:
    text = "file,source,group\nim3.jpg,c.jpg,ann\nim1.jpg,a.jpg, bob \nim9.jpg,x.jpg,ann\n"
    assert read(tmp_path, text) == (["bob", "", "ann"], ["sources.csv:4 no such image: im9.jpg"])


@pytest.mark.parametrize("text", ["", "file,source\nim1.jpg,a.jpg\n"])
def test_without_a_group_column_there_are_none(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == (["", "", ""], [])


def test_without_the_list_there_are_none(tmp_path: Path) -> None:
    assert read_source_groups(tmp_path, None, NAMES) == (["", "", ""], [])


def test_no_csv_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources\.csv: no column 'file'"):
        read(tmp_path, "photo,group\nim1.jpg,ann\n")
    (tmp_path / "sources.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"sources\.csv: "):
        read_source_groups(tmp_path, "sources.csv", NAMES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_list_may_have_been_through_a_spreadsheet(
    tmp_path: Path, encoding: str, separator: str
) -> None:
    text = "File,Source,Group\r\nim2.jpg,b.jpg,e\u0301te\u0301\r\n\r\n,,\r\n".replace(
        ",", separator
    )
    (tmp_path / "sources.csv").write_bytes(text.encode(encoding))
    groups, problems = read_source_groups(tmp_path, "sources.csv", NAMES)
    assert (groups, problems) == (["", "\u00e9t\u00e9", ""], [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("file,group\nim1.jpg,été\n".encode("cp1252"), r"sources\.csv:2: not UTF-8"),
        (b"file,group\nim1.jpg,a,b\n", r"sources\.csv:2: more cells than the 2 columns"),
        (b'file,group\nim1.jpg,"a\n', r"sources\.csv:2: .*a quotation mark is missing"),
        (b"file,group\nim1.jpg,a\nim1.jpg,b\n", r"sources\.csv:3: im1\.jpg stands on line 2"),
    ],
)
def test_a_row_that_is_wrong_is_told_by_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "sources.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_source_groups(tmp_path, "sources.csv", NAMES)
