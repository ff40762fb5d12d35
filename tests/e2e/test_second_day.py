"""The commands of docs/second-day.md, run as printed, and the output that the page shows."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phototag.base.files import file_digest
from phototag.review.results import Results
from phototag.review.session import ReviewSession
from tests.projects import ROOT, Project, make_project
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.soak]

PAGE = ROOT / "docs/second-day.md"
FOLDERS = {"beach": 100, "dog": 100, "puppy": 140, "sunset": 60}
NEW = {"beach": 12, "dog": 12, "sunset": 11, "unsorted": 15}
# In the wrong folders: every twentieth photo of the first day shows the next subject.
SUBJECTS = [*FOLDERS]
ANSWERS = 30


def draw_photo(subject: str, rng: np.random.Generator) -> Image.Image:
    """Draw sand and sea, dark or bright stripes, or a sky with a sun, with noise."""
    y, x = np.mgrid[0:1:96j, 0:1:128j][..., None]
    if subject == "beach":
        pixels = np.where(y < rng.uniform(0.4, 0.6), (110, 170, 230), (225, 200, 140))
    elif subject == "dog":
        pixels = np.where(np.sin(x * rng.uniform(30, 60)) > 0, (40, 110, 40), (70, 50, 30))
    elif subject == "puppy":
        pixels = np.where(np.sin(y * rng.uniform(80, 120)) > 0, (240, 240, 240), (60, 60, 200))
    else:
        sun = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.4, 0.8)) < rng.uniform(0.1, 0.2)
        pixels = np.where(sun, (255, 240, 180), (1 - y) * (70, 30, 90) + y * (250, 130, 30))
    noise = rng.integers(-12, 13, (96, 128, 3))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def write_photos(home: Path) -> dict[str, str]:
    """Write the photos of the page, and return the subject of each photo of the first day."""
    rng, truth = np.random.default_rng(0), {}

    def write(path: str, subject: str) -> None:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        draw_photo(subject, rng).save(home / path)

    for folder, count in FOLDERS.items():
        for number in range(count):
            name, subject = f"{folder}/{folder}_{number:04}.jpg", folder
            if number % 20 == 7:
                subject = SUBJECTS[SUBJECTS.index(folder) - 1]
            truth[name] = subject
            write(f"photos/{name}", subject)
    for folder, count in NEW.items():
        for number in range(count):
            subject = SUBJECTS[number % 4] if folder == "unsorted" else folder
            write(f"new-photos/{folder}/trip_{number:04}.jpg", subject)
    for number in range(5):
        copy = home / f"new-photos/beach/copy_{number}.jpg"
        copy.write_bytes((home / f"photos/beach/beach_{number:04}.jpg").read_bytes())
    for number in range(6):
        write(f"camera/today_{number}.jpg", SUBJECTS[number % 4])
    return truth


class Terminal:
    """A bash session: the folder and the variables of a block are those of the next.

    Args:
        project: Project whose environment the commands get.
        folder: Folder for the state and the output of the session; also its home folder.
        port: Port that replaces the one on the page.
    """

    def __init__(self, project: Project, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        # Caches in the home folder, such as that of fonts, would be made again.
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        self.environment = project.environment | {"HOME": str(folder), "XDG_CACHE_HOME": cache}
        self.state = folder / "state.sh"
        self.state.write_text(f"cd '{project.folder}'\n")
        self.groups: list[int] = []

    def __call__(self, block: str) -> str:
        """Run commands, which must succeed, and return what they print."""
        block = block.replace(":5001", f":{self.port}").replace("-p 5001", f"-p {self.port}")
        save = f'{{ export -p; echo "cd \'$PWD\'"; }} >"{self.state}"'
        script = f'set -e -o pipefail\nsource "{self.state}"\n{block}\n{save}\n'
        # A pipe would stay open as long as a server in the background runs.
        with (self.folder / "output").open("w+") as output:
            process = subprocess.Popen(
                ["bash", "-c", script],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.groups.append(process.pid)
            code = process.wait()
            output.seek(0)
            text = output.read()
        assert code == 0, f"{block}\n{text[-3000:]}"
        return text

    def close(self) -> None:
        """End the servers that were started in the background."""
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def read_blocks() -> list[tuple[str, list[str]]]:
    """Return the commands of each block on the page, and the lines of output after it."""
    found = re.findall(
        r"^```bash\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return [(commands, output.splitlines()) for commands, output in found]


def answer_questions(root: Path, truth: dict[str, str]) -> None:
    """Answer the first questions of `phototag review` as the drawn subjects require."""
    results = Results(root, "errors")
    photos = results.evidence.photos
    session = ReviewSession(
        root / "data/corrections.csv", results.evidence, results.queue, "errors", "ann"
    )
    assert len(results.queue) >= ANSWERS
    for question in results.queue[:ANSWERS]:
        present = truth[photos.files[question.photo]] == photos.labels[question.label]
        session.answer({question: "yes" if present else "no"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def project(home: Path) -> Project:
    """A clone of a shared repository, with the params that users have but few synthetic images."""
    made = make_project(home / "phototag", epochs="6", resamples="1000")
    made("git", "clone", "-q", "--bare", ".", str(home / "share/phototag.git"))
    made("git", "remote", "add", "origin", str(home / "share/phototag.git"))
    made("git", "fetch", "-q", "origin")
    made("git", "branch", "-q", "--set-upstream-to=origin/main")
    return made


@pytest.fixture
def terminal(project: Project, home: Path) -> Iterator[Terminal]:
    session = Terminal(project, home, free_port())
    yield session
    session.close()


def test_the_page_runs_as_printed(project: Project, home: Path, terminal: Terminal) -> None:
    truth, printed = write_photos(home), {}
    for commands, lines in read_blocks():
        if commands == "phototag review\n":
            answer_questions(project.folder, truth)
            continue
        text = printed[commands] = terminal(commands)
        for line in lines:
            # Scores differ between processors.
            pattern = re.sub(r"\d+\\\.\d+", r"\\d+\\.\\d+", re.escape(line))
            pattern = pattern.replace(r"\.\.\.", ".*")
            assert re.search(pattern, text), f"{line}\n{text}"

    # The second model won the comparison, and the first one did not need any.
    train = find(printed, "phototag history")
    assert re.search(r"version 2, champion \(micro F1 \S+ beats", train)
    # The colleague's server returns the labels after the edits.
    answers = find(printed, "phototag ask")
    for number, subject in enumerate(["beach", "dog", "dog", "evening", "beach", "dog"]):
        assert re.search(rf"today_{number}\.jpg\s+{subject}\b", answers), answers

    clone = Project(home / "colleague/phototag")
    assert "Running stage" not in find(printed, "git clone")
    for repository in (project, clone):
        assert repository("git", "status", "--porcelain") == ""
        assert repository("dvc", "status", "--json").strip() == "{}"

    # Commands that are repeated by mistake change nothing.
    files = [home / "tags.csv", *(project.folder / "data/raw").iterdir()]
    before = [file_digest(path) for path in files]
    terminal(f"cd '{project.folder}'\nunset MLFLOW_TRACKING_URI")
    for commands in printed:
        first = commands.splitlines()[0]
        if first.endswith("--add --folder unsorted=unknown"):
            assert "Nothing was added" in terminal(first)
        elif first == "dvc repro":
            assert "Running stage" not in terminal(first)
        elif first.endswith("--new"):
            assert terminal(first) == ""
    assert [file_digest(path) for path in files] == before
    assert project("git", "status", "--porcelain") == ""


def find(printed: dict[str, str], part: str) -> str:
    """Return the output of the block whose commands contain `part`."""
    (text,) = [text for commands, text in printed.items() if part in commands]
    return text
