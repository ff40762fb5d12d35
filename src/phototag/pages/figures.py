"""Style of all figures; other modules import Matplotlib's classes from this module."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phototag.base.files import replace_file
from phototag.pages.html import data_uri

# Notebooks set MPLBACKEND for the processes that they start, and importing Matplotlib fails if that
# backend is not installed. Figures that are only saved to files need no interactive backend.
os.environ["MPLBACKEND"] = "agg"

from matplotlib import colormaps, font_manager, rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["Axes", "Figure", "MaxNLocator", "colormaps"]

# These colours are from Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
MAX_NAME = 40  # maximum number of characters of a name in a figure
# Matplotlib includes DejaVu Sans. The other fonts, if installed, supply glyphs that it lacks.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Arial Unicode MS")
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 110,
    # A label such as $x$ is shown as text and not parsed as a formula.
    "text.parse_math": False,
}


@contextmanager
def figure_style(changes: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Apply the style to figures that are created and saved inside the `with` block.

    The user's matplotlibrc is ignored, so that figures depend only on their data.

    Args:
        changes: Values of Matplotlib's rcParams that override the style (default: none).
    """
    installed = {font.name for font in font_manager.fontManager.ttflist}
    with rc_context():
        rcdefaults()
        rcParams.update(STYLE | {"font.family": [name for name in FONTS if name in installed]})
        rcParams.update(changes or {})
        yield


def new_figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Create a figure with one Axes and return both."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> str:
    """Save a figure as a PNG file and return the image as a data URI."""
    with replace_file(path) as temporary:
        # Matplotlib's version is left out, so that equal figures give identical files.
        figure.savefig(temporary, metadata={"Software": None})
    return data_uri(path.read_bytes(), "image/png")


def shorten_name(name: str) -> str:
    """Shorten a name to one line of at most `MAX_NAME` printable characters."""
    line = "".join(letter for letter in " ".join(name.split()) if letter.isprintable())
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"
