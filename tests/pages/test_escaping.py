import html
import io

import pandas as pd
import pytest

from phototag.pages.escaping import escape_markdown, escape_spreadsheet_cells


def test_spreadsheet_evaluates_no_text() -> None:
    words = ["=1+1", "+1", "-x", "@home", "\tx", "\rx", "cat", "a=b", "", "'x", "_x_"]
    table = pd.DataFrame({"label": words, "value": [-1.5] * len(words)})
    table["again"] = pd.Categorical(words)
    escaped = escape_spreadsheet_cells(table)
    expected = [f"'{word}" for word in words[:6]] + words[6:]
    assert escaped["label"].tolist() == expected
    assert escaped["again"].tolist() == expected
    assert escaped["value"].tolist() == [-1.5] * len(words)
    assert table["label"].tolist() == words  # the original table is not changed
    back = pd.read_csv(io.StringIO(escaped.to_csv(index=False)), keep_default_na=False)
    assert not back["label"].str.startswith(("=", "+", "-", "@")).any()


@pytest.mark.parametrize(
    "word", ["$", "$$", "_x_", "<b>", "&", "a|b", "`", "*", "[x](y)", "\\", "#"]
)
def test_markdown_shows_text_unchanged(word: str) -> None:
    escaped = escape_markdown(word)
    assert not set(escaped.replace("&#", "").replace(";", "")) & set("$_<>&|`*[]\\#~")
    assert html.unescape(escaped) == word


def test_plain_text_is_readable_and_on_one_line() -> None:
    assert escape_markdown("mirflickr-2500, night sky") == "mirflickr-2500, night sky"
    assert escape_markdown("a\nb") == "a b"
