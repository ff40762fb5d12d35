import ast
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from matplotlib import font_manager

from phototag.pages import figures
from phototag.pages.figures import figure_style, find_fonts, new_figure, save_figure, write_name

ROOT = Path(__file__).parents[2]
DRAW = """
from pathlib import Path
from phototag.pages.figures import figure_style, new_figure, save_figure
with figure_style():
    figure, axes = new_figure("title", "x", "y")
    axes.plot([0, 1])
    save_figure(figure, Path("figure.png"))
"""


def draw_elsewhere(folder: Path, **environment: str) -> bytes:
    """Draw in a process of its own, in a folder that may hold a matplotlibrc."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", DRAW],
        check=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
        capture_output=True,
    )
    return (folder / "figure.png").read_bytes()


@pytest.mark.slow
def test_a_figure_depends_on_no_setting_of_the_users(tmp_path: Path) -> None:
    expected = draw_elsewhere(tmp_path / "plain", MPLBACKEND="")
    (tmp_path / "rc").mkdir()
    settings = "font.size: 30\naxes.facecolor: red\ntext.usetex: True\nsavefig.dpi: 30\n"
    (tmp_path / "rc/matplotlibrc").write_text(f"{settings}savefig.format: pdf\n")
    for backend in ("module://matplotlib_inline.backend_inline", "nonsense"):
        assert draw_elsewhere(tmp_path / "rc", MPLBACKEND=backend) == expected


def test_only_one_module_imports_matplotlib() -> None:
    """It hides MPLBACKEND meanwhile: whoever imports it before would fail."""
    users = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "matplotlib" for name in names):
                users.add(path.relative_to(ROOT / "src/phototag").as_posix())
    assert users == {"pages/figures.py"}


def make_font(path: Path, letters: str) -> None:
    """Write a font that has nothing but these letters, each a square."""
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(
        {ord(letter): name for letter, name in zip(letters, names[1:], strict=True)}
    )
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(100, 0), (100, 700), (700, 700), (700, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of the machine's only fonts beside Matplotlib's own."""
    own = font_manager.findfont("DejaVu Sans")
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.fname == own]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(
        font_manager, "findSystemFonts", lambda: [str(path) for path in tmp_path.glob("*.ttf")]
    )
    find_fonts.cache_clear()
    yield tmp_path
    find_fonts.cache_clear()


def test_letters_come_from_a_font_that_has_them(fonts: Path) -> None:
    make_font(fonts / "Cats.ttf", "猫")
    make_font(fonts / "More.ttf", "猫犬")
    make_font(fonts / "Birds.ttf", "鳥")
    assert find_fonts("cat 猫犬鳥") == (["More", "Birds"], "")
    assert find_fonts("naïve, кот, $") == ([], "")  # the usual one has them
    with warnings.catch_warnings(), figure_style(["猫", "犬"]):
        warnings.simplefilter("error")
        assert mpl.rcParams["font.family"] == ["DejaVu Sans", "More"]
        figure, _ = new_figure("猫", "", "犬 and cat")
        figure.canvas.draw()  # no glyph is missing


def test_where_no_font_has_a_letter_that_is_said_once(
    fonts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_font(fonts / "Cats.ttf", "猫")
    assert figures.warn_of_boxes(["猫", "cat"]) == ""
    said = figures.warn_of_boxes(["猫", "犬", "鳥🦜"])
    assert "(3: 犬鳥🦜)" in said
    with warnings.catch_warnings(), figure_style(["犬"]):
        warnings.simplefilter("error")
        figure, _ = new_figure("犬", "", "")
        save_figure(figure, fonts / "figure.png")
    assert "missing" not in capsys.readouterr().err


def test_names_fit_into_a_figure() -> None:
    assert write_name("a\n b\tc") == "a b c"
    assert write_name("x" * 500) == "x" * 39 + "…"
    assert write_name("👩\u200d👧\ufe0f") == "👩👧"
    assert write_name("_x_ $y$") == "_x_ $y$"
