import io

import pandas as pd
import pytest

from phototag.pages.cells import escape_markdown, guard_cells


def test_a_spreadsheet_computes_no_word() -> None:
    words = ["=1+1", "+1", "-x", "@home", "\tx", "\rx", "cat", "a=b", "", "'x", "_x_"]
    table = pd.DataFrame({"label": words, "value": [-1.5] * len(words)})
    table["again"] = pd.Categorical(words)
    guarded = guard_cells(table)
    expected = [f"'{word}" for word in words[:6]] + words[6:]
    assert guarded["label"].tolist() == expected
    assert guarded["again"].tolist() == expected
    assert guarded["value"].tolist() == [-1.5] * len(words)
    assert table["label"].tolist() == words  # what goes on computing has the words themselves
    back = pd.read_csv(io.StringIO(guarded.to_csv(index=False)), keep_default_na=False)
    assert not back["label"].str.startswith(("=", "+", "-", "@")).any()


@pytest.mark.parametrize(
    "word", ["$", "$$", "_x_", "<b>", "&", "a|b", "`", "*", "[x](y)", "\\", "#"]
)
def test_markdown_shows_words_as_they_are(word: str) -> None:
    escaped = escape_markdown(word)
    assert not set(escaped.replace("&#", "").replace(";", "")) & set("$_<>&|`*[]\\#~")
    import html

    assert html.unescape(escaped) == word


def test_plain_words_stay_readable_and_on_one_line() -> None:
    assert escape_markdown("mirflickr-2500, night sky") == "mirflickr-2500, night sky"
    assert escape_markdown("a\nb") == "a b"
