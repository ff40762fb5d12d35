"""The page of `phototag review` in a browser, answered by keyboard."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.reviews import DOUBTFUL, make_review, read_rows
from tests.servers import free_port, run_server

pytestmark = pytest.mark.slow

SLOW = 60_000  # milliseconds that a busy machine may need for a page


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Iterator[tuple[Path, str]]:
    """Yield a project and the address of its page of likely label errors."""
    folder = make_review(tmp_path_factory.mktemp("errors") / "project", packed)
    with serve(folder, free_port(), "errors") as address:
        yield folder, address


@contextmanager
def serve(project: Path, port: int, ranking: str, who: str = "ann") -> Iterator[str]:
    command = [sys.executable, "-c", "from phototag.cli import app; app()", "review"]
    command += ["--port", str(port), "--ranking", ranking, "--who", who]
    health = f"http://127.0.0.1:{port}/_stcore/health"
    with run_server(command, health, project, os.environ, project.parent / "log"):
        yield f"http://127.0.0.1:{port}"


def press(page: Page, key: str, then: str) -> None:
    """Press a key, and wait for a text of the progress bar and for the next question.

    A busy browser may draw a button before it handles its key, so the key is pressed again.
    """
    for _ in range(6):
        page.keyboard.press(key)
        with suppress(AssertionError):
            expect(page.get_by_text(then)).to_be_visible(timeout=SLOW / 6)
            break
    expect(page.get_by_text(then)).to_be_visible(timeout=SLOW)
    await_page(page)


def await_page(page: Page) -> None:
    """Wait until the page is drawn; keys before that have no effect."""
    done = page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
    expect(done).to_be_visible(timeout=SLOW)


def test_answers_by_keyboard_survive_a_killed_server(
    project: Path, port: int, browser: Browser
) -> None:
    keys = {"yes": "y", "no": "n", "unsure": "u"}
    answers = ["yes", "no", "unsure", "yes", "no", "yes", "yes", "no", "unsure"]
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serve(project, port, "next") as address:
        page.goto(address)
        expect(page.get_by_text("0 of 9 answered")).to_be_visible(timeout=SLOW)
        expect(page.get_by_text("Dataset label: unknown. Model score:")).to_be_visible()
        await_page(page)
        for number, answer in enumerate(answers[:4], start=1):
            press(page, keys[answer], f"{number} of 9 answered")
        # Undo the last answer and give it again.
        press(page, "z", "3 of 9 answered")
        press(page, keys[answers[3]], "4 of 9 answered")
        # Going back and skipping writes no answer.
        question = page.get_by_role("heading", name="Does this photo show")
        shown = question.inner_text()
        page.keyboard.press("b")
        expect(page.get_by_text("Answer: yes, by ann.")).to_be_visible(timeout=SLOW)
        await_page(page)
        page.keyboard.press("s")
        expect(page.get_by_text("Answer: yes, by ann.")).to_have_count(0, timeout=SLOW)
        expect(question).to_have_text(shown)
        [server] = [
            process
            for process in psutil.process_iter(["cmdline"])
            if f"--server.port={port}" in (process.info["cmdline"] or ())
        ]
        server.kill()
    with serve(project, port, "next") as address:
        page.goto(address)
        expect(page.get_by_text("4 of 9 answered")).to_be_visible(timeout=SLOW)
        await_page(page)
        for number, answer in enumerate(answers[4:], start=5):
            press(page, keys[answer], f"{number} of 9 answered")
        expect(page.get_by_text("All questions are answered.")).to_be_visible(timeout=SLOW)
    page.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)

    rows = read_rows(project)
    assert [row[2] for row in rows] == [*answers[:4], "unsure", *answers[3:]]
    assert [row[3] for row in rows] == ["unsure"] * 4 + ["yes"] + ["unsure"] * 6
    assert {row[4] for row in rows} == {"ann"}
    assert [row[5] for row in rows] == ["next"] * 4 + ["undo"] + ["next"] * 6
    photos = [int(m[1]) for row in rows if (m := re.search(r"im(\d+)\.jpg", row[0]))]
    assert len(set(zip(photos, [row[1] for row in rows], strict=True))) == len(DOUBTFUL)


@pytest.mark.soak
def test_two_pages_do_not_ask_the_same_question(errors: tuple[Path, str], browser: Browser) -> None:
    project, address = errors
    pages = [browser.new_page() for _ in range(2)]
    for page in pages:
        page.goto(address)
        expect(page.get_by_text("0 of ")).to_be_visible(timeout=SLOW)
        await_page(page)
    press(pages[0], "y", "1 of ")
    press(pages[0], "n", "2 of ")
    # The other page still shows the first question. Its answer is later and counts.
    press(pages[1], "u", "2 of ")
    press(pages[1], "y", "3 of ")
    for page in pages:
        page.close()
    rows = read_rows(project)
    assert [row[2] for row in rows] == ["yes", "no", "unsure", "yes"]
    assert rows[0][:2] == rows[2][:2]
    assert rows[2][3] == "yes"
    assert rows[3][:2] not in [row[:2] for row in rows[:3]]


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_question_and_buttons_fit_on_desktop_and_phone(
    errors: tuple[Path, str], browser: Browser, width: int, height: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(errors[1])
    for name in ("Yes", "No", "Unsure", "Back", "Skip", "Undo"):
        button = page.get_by_role("button", name=re.compile(f"^{name}"))
        expect(button).to_be_visible(timeout=SLOW)
        expect(button).to_be_in_viewport(ratio=1)
    # One image of the photo with its heat map, and six similar photos.
    expect(page.locator("img")).to_have_count(7)
    expect(page.locator("img").first).to_be_in_viewport(ratio=0.5)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if screenshots := os.environ.get("PHOTOTAG_SCREENSHOTS"):
        page.screenshot(path=Path(screenshots, f"review-{width}.png"))
    page.close()
