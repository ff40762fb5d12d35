"""Tests of the prose check."""

from pathlib import Path

import pytest

from tools.prose import check_file


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The log tells the loss.\n", ["tells"]),
        ("`study.tell(trial)` reports an intellectual result.\n", []),
        ("The prose check ignores that it tells. <!-- prose: ignore -->\n", []),
    ],
)
def test_refused_terms_are_found_as_whole_words(
    tmp_path: Path, text: str, found: list[str]
) -> None:
    file = tmp_path / "page.md"
    file.write_text(text)
    assert [finding[1] for finding in check_file(file)] == found


def test_refused_first_words_are_found_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""Its module."""\n\n\n'
        "def read(path: str, size: int) -> str:\n"
        '    """Read a file.\n\n'
        "    Args:\n"
        "        path: Of the file.\n"
        "        size: Number of bytes.\n\n"
        "    Returns:\n"
        "        What the file holds.\n"
        '    """\n'
        "    return open(path).read(size)  # of the file\n"
    )
    assert [(line, found) for line, found, _ in check_file(file)] == [
        (1, "Its ..."),
        (8, "Of ..."),
        (12, "What ..."),
        (14, "of ..."),
    ]
