"""Style of all figures. No other module imports Matplotlib directly."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phototag.base.files import replace_file
from phototag.pages.html import data_uri

# Notebooks set MPLBACKEND for every process they start. Matplotlib cannot be imported if that
# backend is not installed, and figures that are saved to files need no interactive backend.
os.environ["MPLBACKEND"] = "agg"

from matplotlib import colormaps, font_manager, rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["Axes", "Figure", "MaxNLocator", "colormaps"]

# Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
MAX_NAME = 40  # characters of a name in a figure
# DejaVu Sans comes with Matplotlib. The others are used, if installed, for glyphs that it lacks.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Arial Unicode MS")
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 110,
    # A label named $x$ is text, not a formula.
    "text.parse_math": False,
}


@contextmanager
def figure_style(changes: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Apply the style to figures that are made and saved in this context.

    A user's matplotlibrc is ignored, so that figures depend on their data only.

    Args:
        changes: Matplotlib's rcParams that differ from the style (default: none).
    """
    installed = {font.name for font in font_manager.fontManager.ttflist}
    with rc_context():
        rcdefaults()
        rcParams.update(STYLE | {"font.family": [name for name in FONTS if name in installed]})
        rcParams.update(changes or {})
        yield


def new_figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> str:
    """Write a PNG and return it as a data URI."""
    with replace_file(path) as temporary:
        # Without the version of Matplotlib in the metadata, equal figures have equal bytes.
        figure.savefig(temporary, metadata={"Software": None})
    return data_uri(path.read_bytes(), "image/png")


def shorten_name(name: str) -> str:
    """Return a name as one line of at most `MAX_NAME` printable characters."""
    line = "".join(letter for letter in " ".join(name.split()) if letter.isprintable())
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"
