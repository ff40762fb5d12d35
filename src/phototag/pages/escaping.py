"""Escaping of user text for spreadsheets and Markdown."""

import re

import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet evaluates cells with these starts
MARKUP = re.compile(r"[&<>\\`*_\[\]|~$#]")


def escape_spreadsheet_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text a spreadsheet does not evaluate as a formula.

    Numbers are not changed. Use it only for tables that people open: a program that looks up rows
    by a label or a file name needs the original text.
    """
    escaped = table.copy(deep=False)
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            escaped[column] = table[column].map(escape_spreadsheet_cell)
    return escaped


def escape_spreadsheet_cell(value: object) -> object:
    """Prefix text that starts like a formula with `'`, and return any other value unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown, also in a table, shows it unchanged and on one line."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def escape_streamlit(text: str) -> str:
    """Escape text so that Streamlit's Markdown shows it unchanged."""
    return re.sub(r"([!-+\-/:-@\[-`{-~])", r"\\\1", text)
