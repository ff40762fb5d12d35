"""A user's words where others would read them as a formula or as markup."""

import re

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet begins to compute at
MARKUP = re.compile(r"[&<>\\`*_\[\]|~$#]")


def guard_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Keep a spreadsheet from computing words: those that begin like a formula get a ' in front.

    Numbers stay as they are. So does a table that a program reads by these words: guard only what
    people open.
    """
    guarded = table.copy(deep=False)
    for column in table.columns:
        values = table[column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            guarded[column] = values.cat.rename_categories(guard_cell)
        elif not pd.api.types.is_numeric_dtype(values.dtype):
            guarded[column] = values.map(guard_cell)
    return guarded


def guard_cell(value: object) -> object:
    """Put a ' in front of a word that begins like a formula; all else stays as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def escape_markdown(text: str) -> str:
    """Write text so that Markdown, also in a table, shows it as it is, on one line."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def show_plain(text: str) -> str:
    """Escape text so that Streamlit's Markdown shows it unchanged."""
    return re.sub(r"([!-+\-/:-@\[-`{-~])", r"\\\1", text)
