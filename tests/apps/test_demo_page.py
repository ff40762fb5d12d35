"""The demo page in Streamlit's test runner, without a browser."""

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from phototag.network.weights import SYNTHETIC
from tests.models import make_model

PAGE = Path(__file__).parents[2] / "src/phototag/apps/demo_page.py"


def draw(model: Path, thresholds: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["demo", str(model), str(thresholds)])
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    return page


@pytest.mark.parametrize("source", [SYNTHETIC, "data/my_*photos*.zip", ""])
def test_page_shows_what_the_model_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    page = draw(*make_model(tmp_path, source=source), monkeypatch)
    warnings, captions = ([found.value for found in some] for some in (page.warning, page.caption))
    if source == SYNTHETIC:
        assert "40 synthetic images only" in warnings[0]
        assert not captions
    else:
        assert not warnings
        # Names are escaped for Markdown.
        assert [r"my\_\*photos\*" in text for text in captions] == [True] * bool(source)


def test_missing_model_shows_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = draw(tmp_path / "none.safetensors", tmp_path / "none.json", monkeypatch)
    assert "is missing" in page.error[0].value
