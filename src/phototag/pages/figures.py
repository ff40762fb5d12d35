"""The style that all figures share, and letters for any user's words.

Only this module imports Matplotlib; others take from it what they need.
"""

import base64
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from phototag.base.files import replace_file


@contextmanager
def _without_backend() -> Iterator[None]:
    """Hide MPLBACKEND: a notebook names its own to all that it starts.

    Matplotlib refuses to be imported where that backend is not installed, and figures that are
    written to files need none.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named


with _without_backend():
    from matplotlib import colormaps, font_manager, rc_context, rcdefaults, rcParams
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font
    from matplotlib.ticker import MaxNLocator

__all__ = ["Axes", "Figure", "MaxNLocator", "colormaps"]

# Okabe and Ito's colours keep apart for colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
FONT = "DejaVu Sans"  # comes with Matplotlib
LONGEST = 40  # letters of a name in a figure
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 110,
    # A label called $x$ is no formula.
    "text.parse_math": False,
}


@contextmanager
def figure_style(names: Iterable[str] = ()) -> Iterator[None]:
    """Give figures that are made and saved meanwhile their style, whatever a matplotlibrc says.

    Args:
        names: The user's words in them; fonts that have their letters are used where the usual one
            lacks some.
    """
    families, _ = find_fonts("".join(names))
    with rc_context():
        rcdefaults()
        rcParams.update(STYLE | {"font.family": [FONT, *families]})
        yield


def new_figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> str:
    """Write a PNG and return it as a data URI."""
    with replace_file(path) as temporary, warnings.catch_warnings():
        # `warn_of_boxes` says it once, and what to do.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        # Without the metadata, which names the library's version, equal figures are equal bytes.
        figure.savefig(temporary, metadata={"Software": None})
    return embed(path.read_bytes(), "image/png")


def embed(data: bytes, kind: str) -> str:
    """Return a data URI, so that a page needs no file beside it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def write_name(name: str) -> str:
    """Write a user's word so that it fits into a figure: on one line, and not too long."""
    line = "".join(letter for letter in " ".join(name.split()) if _is_drawn(letter))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def warn_of_boxes(names: Iterable[str]) -> str:
    """Say which letters figures show as boxes, and what to do; nothing where there are none."""
    _, missing = find_fonts("".join(names))
    if not missing:
        return ""
    some = "".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
    return (
        f"Figures show boxes where no installed font has the letter ({len(missing)}: {some}): "
        "install one that has it, such as Noto Sans CJK, and run this again."
    )


@cache
def find_fonts(text: str) -> tuple[list[str], str]:
    """Find installed fonts for the letters that the usual one lacks.

    Returns:
        Their families, those with the most of these letters first; and the letters that none has.
    """
    wanted = {letter for letter in text if _is_drawn(letter) and not letter.isspace()}
    missing = wanted - _letters(font_manager.findfont(FONT))
    families: list[str] = []
    if missing:
        has = {path: found for path in _list_fonts() if (found := missing & _letters(path))}
        while has:
            # Of several alike the first by name, so that equal machines draw equal figures.
            best = min(has, key=lambda path: (-len(has[path]), path))
            missing = missing - has[best]
            families.append(_add_font(best))
            has = {path: found for path, old in has.items() if (found := old & missing)}
    return families, "".join(sorted(missing))


def _is_drawn(letter: str) -> bool:
    """Tell letters from what only joins or turns them: control and format characters."""
    return unicodedata.category(letter) not in ("Cc", "Cf", "Cs") and letter not in "\ufe0e\ufe0f"


def _list_fonts() -> list[str]:
    """List the fonts' files: those known, and those installed since Matplotlib looked for them."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    found = known | set(font_manager.findSystemFonts())
    # Of that font, which comes with Matplotlib, every glyph is a box.
    return sorted(path for path in found if not Path(path).name.startswith("LastResort"))


@cache
def _letters(path: str) -> frozenset[str]:
    """Return the letters that a font's file can draw."""
    with suppress(OSError, RuntimeError, ValueError):
        font = FT2Font(path)
        if font.scalable:  # emoji in colour are pictures of one size
            return frozenset(map(chr, font.get_charmap()))
    return frozenset()


def _add_font(path: str) -> str:
    """Make a font's file known to Matplotlib and return its family."""
    entries = font_manager.fontManager.ttflist
    if path not in {entry.fname for entry in entries}:
        font_manager.fontManager.addfont(path)
    return next(entry.name for entry in entries if entry.fname == path)
