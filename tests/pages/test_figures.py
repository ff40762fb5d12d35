import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import font_manager

from phototag.pages.figures import figure_style, new_figure, save_figure, shorten_name

ROOT = Path(__file__).parents[2]
DRAW = """
from pathlib import Path
from phototag.pages.figures import figure_style, new_figure, save_figure
with figure_style():
    figure, axes = new_figure("title", "x", "y")
    axes.plot([0, 1])
    save_figure(figure, Path("figure.png"))
"""


def draw_in_process(folder: Path, **environment: str) -> bytes:
    """Draw a figure in another process, whose working directory may hold a matplotlibrc."""
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
def test_figures_do_not_depend_on_user_settings(tmp_path: Path) -> None:
    expected = draw_in_process(tmp_path / "plain", MPLBACKEND="")
    (tmp_path / "rc").mkdir()
    settings = "font.size: 30\naxes.facecolor: red\ntext.usetex: True\nsavefig.dpi: 30\n"
    (tmp_path / "rc/matplotlibrc").write_text(f"{settings}savefig.format: pdf\n")
    for backend in ("module://matplotlib_inline.backend_inline", "nonsense"):
        assert draw_in_process(tmp_path / "rc", MPLBACKEND=backend) == expected


def test_only_one_module_imports_matplotlib() -> None:
    # That module sets MPLBACKEND first: an import elsewhere could fail.
    users = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "matplotlib" for name in names):
                users.add(path.relative_to(ROOT / "src/phototag").as_posix())
    assert users == {"pages/figures.py"}


def test_only_installed_fonts_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = font_manager.fontManager.ttflist[0]
    fonts = [font_manager.FontEntry(name=name) for name in ("DejaVu Sans", "Noto Sans CJK JP")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [installed, *fonts])
    with figure_style():
        assert mpl.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans CJK JP"]


def test_names_are_short_printable_lines() -> None:
    assert shorten_name("a\n b\tc") == "a b c"
    assert shorten_name("x" * 500) == "x" * 39 + "…"
    assert shorten_name("👩\u200d👧") == "👩👧"
    assert shorten_name("_x_ $y$") == "_x_ $y$"


def test_dollar_signs_are_no_formula(tmp_path: Path) -> None:
    with figure_style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, _ = new_figure(r"$\frac{", "", "")
        save_figure(figure, tmp_path / "figure.png")
