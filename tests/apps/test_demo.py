import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.models import make_model
from tests.servers import run_server

pytestmark = pytest.mark.slow
TIMEOUT = 180_000  # milliseconds; the server loads the model at the first request


@pytest.fixture
def address(tmp_path: Path, port: int) -> Iterator[str]:
    noise = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8)
    model, thresholds = make_model(tmp_path / "model", photos=noise)
    command = [sys.executable, "-c", "from phototag.cli import app; app()", "demo"]
    command += ["--port", str(port), "--model", str(model), "--thresholds", str(thresholds)]
    health = f"http://127.0.0.1:{port}/_stcore/health"
    with run_server(command, health, tmp_path, os.environ):
        yield f"http://127.0.0.1:{port}"


def test_dropped_photo_is_labelled(address: str, browser: Browser, tmp_path: Path) -> None:
    blue = tmp_path / "blue.png"
    Image.new("RGB", (40, 30), (220, 0, 0)).save(blue)
    text = tmp_path / "text.jpg"
    text.write_text("no photo")
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator("input[type=file]").set_input_files(blue)
    expect(page.get_by_role("heading", name="blue")).to_be_visible(timeout=TIMEOUT)
    expect(page.get_by_text("blue: 1.00 (threshold 0.50)")).to_be_visible()
    expect(page.get_by_text("red: 0.00 (threshold 0.50)")).to_be_visible()
    expect(page.locator("img")).to_have_count(1)
    unlike = "Familiarity: 0.0 of 100. This photo is unlike anything in training"
    expect(page.get_by_text(unlike)).to_be_visible()
    page.locator("input[type=file]").set_input_files(text)
    expect(page.get_by_text("text.jpg: not an image")).to_be_visible(timeout=TIMEOUT)
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    page.close()
