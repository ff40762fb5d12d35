"""The page of `phototag review` in a browser, answered by keyboard."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page, expect

from tests.reviews import DOUBTFUL, make_review, read_rows
from tests.servers import free_port, run_server

pytestmark = pytest.mark.slow

SLOW = 60_000  # milliseconds that a busy machine may need for a page
# The page of a server that draws a question only while nobody holds a lock.
PAGE = """
from filelock import FileLock
from phototag.review import page

draw = page.render_view

def wait(*arguments):
    with FileLock("lock"):
        return draw(*arguments)

page.render_view = wait
page.main()
page.render_view = draw
"""
# After `hold()`, the browser decodes photos only when `release()` is called.
PHOTOS = """
const decode = HTMLImageElement.prototype.decode;
let gate = Promise.resolve();
window.hold = () => { gate = new Promise((open) => { window.release = open; }); };
window.photos = 0;
HTMLImageElement.prototype.decode = function () {
  window.photos += 1;
  return gate.then(() => decode.call(this));
};
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Iterator[tuple[Path, str]]:
    """Yield a project and the address of its page of likely label errors, drawn by `PAGE`."""
    folder = make_review(tmp_path_factory.mktemp("errors") / "project", packed)
    script = folder.with_name("page.py")
    script.write_text(PAGE)
    port = free_port()
    start = "import sys; from pathlib import Path; from phototag.apps.server import serve_page; "
    start += "serve_page(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])"
    command = [sys.executable, "-c", start, str(script), str(port), str(folder), "errors", "ann"]
    with run(command, port, folder) as address:
        yield folder, address


@contextmanager
def serve(project: Path, port: int, ranking: str, *options: str) -> Iterator[str]:
    command = [sys.executable, "-c", "from phototag.cli import app; app()", "review", *options]
    command += ["--port", str(port), "--ranking", ranking, "--who", "ann"]
    with run(command, port, project) as address:
        yield address


@contextmanager
def run(command: list[str], port: int, project: Path) -> Iterator[str]:
    """Run a server in the folder of a project, and check what it prints."""
    address = f"http://127.0.0.1:{port}"
    log = project.parent / "log"
    with run_server(command, f"{address}/_stcore/health", project, os.environ, log):
        yield address
    printed = log.read_text().removesuffix("  Stopping...\n")
    assert printed == f"Open {address}\nPress Ctrl-C to stop the server.\n"


def press(page: Page, key: str, then: str) -> None:
    """Press a key, and wait for a text and for the next question."""
    page.keyboard.press(key)
    expect(page.get_by_text(then)).to_be_visible(timeout=SLOW)
    await_page(page)


def await_page(page: Page) -> None:
    """Wait until the photos are on the screen; keys before that have no effect."""
    expect(page.locator('section[aria-busy="false"]')).to_be_visible(timeout=SLOW)


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
        question = page.get_by_role("heading", name="correct?")
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
    await_page(page)
    expect(page.locator("img")).to_have_count(7)
    expect(page.locator("img").first).to_be_in_viewport(ratio=0.5)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if screenshots := os.environ.get("PHOTOTAG_SCREENSHOTS"):
        page.screenshot(path=Path(screenshots, f"review-{width}.png"))
    page.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_grid_is_answered_by_clicks_and_one_key(
    project: Path, port: int, browser: Browser, width: int, height: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    with serve(project, port, "next", "--grid") as address:
        page.goto(address)
        await_page(page)
        heading = page.get_by_role("heading", name="correct?")
        tiles = page.locator(".tile")
        label = heading.inner_text()
        expect(tiles).to_have_count(3)
        yes, no = (page.get_by_role("button", name=f"{word} to the rest") for word in ("Yes", "No"))
        for button in (yes, no, page.get_by_role("button", name="Undo")):
            expect(button).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # The second photo is marked by keyboard, the first one by a click.
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        tiles.first.click()
        tiles.first.click()
        expect(yes).to_contain_text("1 yes, 1 no, 1 unsure")
        expect(no).to_contain_text("1 no, 1 yes, 1 unsure")
        if screenshots := os.environ.get("PHOTOTAG_SCREENSHOTS"):
            page.screenshot(path=Path(screenshots, f"grid-{width}.png"))
        press(page, "n", "3 of ")
        assert [row[2] for row in read_rows(project)] == ["unsure", "yes", "no"]
        press(page, "z", "0 of ")
        expect(heading).to_have_text(label)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(tiles.nth(1)).to_be_focused()
    page.close()
    assert [row[5] for row in read_rows(project)] == ["next"] * 3 + ["undo"] * 3


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


def test_key_pressed_twice_does_not_answer_a_question_whose_photo_is_not_shown(
    errors: tuple[Path, str], browser: Browser
) -> None:
    project, address = errors
    page = browser.new_page()
    page.add_init_script(PHOTOS)
    page.goto(address)
    await_page(page)
    rows = len(read_rows(project))
    answered = int(page.get_by_text("answered (errors)").inner_text().split()[0])
    first = read_question(page)
    page.evaluate("hold()")
    seen = page.evaluate("photos")
    with FileLock(project / "lock"):  # the server does not draw the next question
        page.keyboard.press("y")
        page.keyboard.press("y")
        expect(page.locator('section[aria-busy="true"]')).to_be_visible()
        assert read_question(page) == first
    # The browser has the next question, but not its photo.
    page.wait_for_function(f"photos > {seen}", timeout=SLOW)
    page.keyboard.press("y")
    assert page.get_by_role("button", name="Yes").is_disabled()
    assert read_question(page) == first
    page.evaluate("release()")
    await_page(page)
    second = read_question(page)
    press(page, "n", f"{answered + 2} of ")
    page.close()
    assert [tuple(row[:3]) for row in read_rows(project)[rows:]] == [
        (*first, "yes"),
        (*second, "no"),
    ]
    assert first != second


def read_question(page: Page) -> tuple[str, str]:
    """Return the file and the label of the question on the screen."""
    heading = page.get_by_role("heading", name="correct?").inner_text()
    return page.locator("figcaption b").inner_text(), heading.split('"')[1]
