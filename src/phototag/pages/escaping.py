"""Escape user text for spreadsheets and Markdown."""

import re

import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula
MARKUP = re.compile(r"[&<>\\`*_\[\]|~$#]")


def escape_spreadsheet_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Escape the text in a table so that a spreadsheet does not evaluate it as formulas.

    Numbers are not changed. Use this function only for tables that people open in a spreadsheet: a
    program that looks up rows by label or file name needs the original text.
    """
    text = table.select_dtypes(exclude="number")
    return table.assign(**text.map(escape_spreadsheet_cell))


def escape_spreadsheet_cell(value: object) -> object:
    """Prepend `'` to text that starts like a formula; return any other value unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown renders it literally and on one line, even in a table."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def escape_streamlit(text: str) -> str:
    """Escape text so that Streamlit's Markdown renders it literally."""
    return re.sub(r"([!-+\-/:-@\[-`{-~])", r"\\\1", text)
