"""Measure how many answers per minute a browser gives on the page of `phototag review`.

Run `python -m benchmarks.review_speed` in a project after `dvc repro`. Headless Chromium answers
`ANSWERS` questions of the ranking `errors`, once one at a time and once with `--grid`. In a grid,
it clicks every fourth photo as an exception, and answers for the rest with one key. It answers as
soon as keys work, so the result is the speed of the page without the time in which a person looks
at the photos. The answers are written to a copy of data/corrections.csv.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import name_processor
from phototag.review.evidence import INPUTS

ANSWERS, PORT, EVERY = 96, 8599, 4
READY = 'section[aria-busy="false"]'


def copy_project(folder: Path) -> None:
    """Link the files that the page reads, and copy the file that it writes."""
    for name in (*INPUTS, "params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(Path(name).resolve())
    shutil.copy("data/corrections.csv", folder / "data")


def answer_all(page: Page) -> tuple[int, list[float]]:
    """Answer questions, and return their number and the seconds of each page."""
    answered, times = 0, []
    while answered < ANSWERS:
        started = time.perf_counter()
        before = page.locator("section[data-page]").get_attribute("data-page")
        tiles = page.locator(".tile")
        shown = tiles.count()
        for number in range(0, shown, EVERY):
            tiles.nth(number).click()
        page.keyboard.press("n" if answered % EVERY == 0 and not shown else "y")
        page.locator(f'{READY}:not([data-page="{before}"])').wait_for()
        answered += shown or 1
        times.append(time.perf_counter() - started)
    return answered, times


def main() -> None:
    """Print answers per minute, and the median time of a page, for both kinds of page."""
    print(name_processor(), os.cpu_count(), "cores")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for options in ([], ["--grid"]):
            with TemporaryDirectory() as folder:
                copy_project(Path(folder))
                command = [sys.executable, "-c", "from phototag.cli import app; app()", "review"]
                command += ["--port", str(PORT), "--who", "benchmark", *options]
                server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
                try:
                    wait_for(f"http://127.0.0.1:{PORT}/_stcore/health")
                    page = browser.new_page()
                    page.goto(f"http://127.0.0.1:{PORT}")
                    page.locator(READY).wait_for(timeout=120_000)
                    answered, times = answer_all(page)
                    page.close()
                finally:
                    server.kill()
                    server.wait()
            rate, median = 60 * answered / sum(times), statistics.median(times)
            kind = "24 on a page" if options else "one at a time"
            print(f"{kind}: {answered} answers, {rate:.0f} per minute, {median:.2f} s per page")
        browser.close()


def wait_for(address: str) -> None:
    """Wait until the server answers."""
    while True:
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=5).read()
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
