"""The style that all figures share."""

import base64
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phototag.base.files import replace_file

# Okabe and Ito's colours keep apart for colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 110,
}


def new_figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> str:
    """Write a PNG and return it as a data URI."""
    with replace_file(path) as temporary:
        # Without the metadata, which names the library's version, equal figures are equal bytes.
        figure.savefig(temporary, metadata={"Software": None})
    return embed(path.read_bytes(), "image/png")


def embed(data: bytes, kind: str) -> str:
    """Return a data URI, so that a page needs no file beside it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
