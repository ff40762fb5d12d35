from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.verification.listing import read_sources


def read(folder: Path, text: str) -> list[str]:
    (folder / "sources.csv").write_text(text, encoding="utf-8")
    return read_groups(folder)


def read_groups(folder: Path, listing: str | None = "sources.csv") -> list[str]:
    rows = read_sources(folder, listing)
    return [rows.get(number, {}).get("group", "") for number in (1, 2, 3)]


def test_groups_have_the_order_of_the_photos(tmp_path: Path) -> None:
    text = "file,source,group\nim3.jpg,c.jpg,ann\nimages/im1.png,a.jpg, bob \nim9.jpg,x.jpg,ann\n"
    assert read(tmp_path, text) == ["bob", "", "ann"]


@pytest.mark.parametrize("text", ["", "file,source\nim1.jpg,a.jpg\n"])
def test_without_a_group_column_there_are_no_groups(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ["", "", ""]
    assert read_groups(tmp_path, None) == ["", "", ""]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_file_saved_by_a_spreadsheet_is_read(tmp_path: Path, encoding: str, separator: str) -> None:
    text = "File,Source,Group\r\nim2.jpg,b.jpg,e\u0301te\u0301\r\n\r\n,,\r\n".replace(
        ",", separator
    )
    (tmp_path / "sources.csv").write_bytes(text.encode(encoding))
    assert read_groups(tmp_path) == ["", "\u00e9t\u00e9", ""]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"photo,group\nim1.jpg,ann\n", r"sources\.csv: the column 'file' is missing"),
        (b"photo,sha256\nim1.jpg,ab12\n", r"sources\.csv: the column 'file' is missing"),
        ("file,group\nim1.jpg,été\n".encode("cp1252"), r"sources\.csv:2: not UTF-8"),
        (b'file,group\nim1.jpg,"a\n', r"sources\.csv:2: .*a quotation mark is missing"),
        (b"file,group\n>>>>>>> other\n", r"sources\.csv holds merge conflict markers"),
    ],
)
def test_invalid_file_is_refused_with_file_and_line(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "sources.csv").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_groups(tmp_path)
