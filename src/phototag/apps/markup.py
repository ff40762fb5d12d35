"""The user's words on a page of Streamlit."""

import re


def show_plain(text: str) -> str:
    """Write words so that Streamlit's Markdown shows them as they are."""
    return re.sub(r"([!-+\-/:-@\[-`{-~])", r"\\\1", text)
