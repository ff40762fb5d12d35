"""Predictions of new photos, added to an existing output."""

import csv
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from phototag.apps import predictions
from phototag.base.errors import InputError
from phototag.serving.tagger import Tagger, Tags, tag_photos
from tests.apps.test_predictions import COLORS, options, run
from tests.forks import fork
from tests.models import make_model

Rows = dict[str, str]  # file -> predicted labels, or the error
Add = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    return make_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `photos` in the current folder, with a red and a blue photo and no other file."""
    monkeypatch.chdir(tmp_path)
    paint("photos/blue.png")
    paint("photos/red.png")
    return tmp_path / "photos"


@pytest.fixture(params=["csv", "jsonl"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"tags.{request.param}"


@pytest.fixture
def add(model: tuple[Path, Path], photos: Path, output: Path) -> Add:
    """Function that runs `phototag predict photos --new`, or with other arguments."""

    def call(*arguments: str) -> tuple[int, str, str]:
        arguments = arguments or ("photos",)
        return run(*arguments, "--new", "-o", str(output), *options(model))

    return call


def paint(path: str, color: str = "", side: int = 20) -> Path:
    """Write a photo of the colour that the name starts with; `side` changes its content."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, side), COLORS[color or file.stem.split(" ")[0]]).save(file)
    return file


def read_rows(output: Path) -> list[dict[str, Any]]:
    with output.open(newline="", encoding="utf-8") as file:
        if output.suffix == ".csv":
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file]


def read_labels(output: Path) -> list[tuple[str, str]]:
    """Return the path and the labels, or the start of the error, of each row."""
    rows = read_rows(output)
    labels = [
        row["labels"] if isinstance(row["labels"], str) else ";".join(row["labels"]) for row in rows
    ]
    return [
        (row["file"], found or (row["error"] or "")[:12])
        for row, found in zip(rows, labels, strict=True)
    ]


def test_only_new_photos_are_predicted(
    add: Add, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watch(tagger: Tagger, data: list[bytes | InputError]) -> list[Tags]:
        seen.append(len(data))
        return tag_photos(tagger, data)

    monkeypatch.setattr(predictions, "tag_photos", watch)
    assert add() == (0, f"{output}: photos added: 2, moved: 0, unreadable: 0\n", "")
    before = output.read_bytes()
    shutil.copy("photos/red.png", "photos/red copy.png")
    Path("photos/notes.txt").write_text("no photo")
    stamp = output.stat().st_mtime_ns
    assert add() == (0, "", "")
    assert output.stat().st_mtime_ns == stamp
    paint("photos/blue 2.png", side=21)
    paint("photos/sub/red 2.png", side=21)
    assert add()[:2] == (0, f"{output}: photos added: 2, moved: 0, unreadable: 0\n")
    assert seen == [2, 2]
    assert output.read_bytes().startswith(before)
    assert read_labels(output) == [
        ("photos/blue.png", "blue"),
        ("photos/red.png", "red"),
        ("photos/blue 2.png", "blue"),
        ("photos/sub/red 2.png", "red"),
    ]
    for row in read_rows(output):
        assert row["sha256"] == hashlib.sha256(Path(row["file"]).read_bytes()).hexdigest()
    assert {path.name for path in Path.cwd().iterdir()} == {
        "model", "photos", output.name, f".{output.name}.lock",
    }  # fmt: skip


def test_output_of_predict_is_extended(add: Add, model: tuple[Path, Path], output: Path) -> None:
    assert run("photos", "-o", str(output), *options(model))[0] == 0
    output.chmod(0o640)
    before = output.read_bytes()
    paint("photos/none.png")
    assert add()[0] == 0
    assert output.read_bytes().startswith(before)
    assert read_labels(output)[2:] == [("photos/none.png", "")]
    assert output.stat().st_mode & 0o777 == 0o640
    whole = output.with_stem("whole")
    assert (
        run(*(row["file"] for row in read_rows(output)), "-o", str(whole), *options(model))[0] == 0
    )
    assert whole.read_bytes() == output.read_bytes()


def test_moved_photo_is_not_predicted_again(add: Add, output: Path) -> None:
    add()
    before = read_rows(output)
    Path("elsewhere").mkdir()
    Path("photos/red.png").rename("elsewhere/red.png")
    assert add()[1] == ""  # the photo may be on a disk that is not mounted
    assert add("photos", "elsewhere")[1] == f"{output}: photos added: 0, moved: 1, unreadable: 0\n"
    Path("photos/blue.png").rename(os.fsdecode(b"photos/b\xe9.png"))
    assert add()[1].endswith("photos added: 0, moved: 1, unreadable: 0\n")
    assert add("./photos", str(Path.cwd() / "elsewhere")) == (0, "", "")
    names = ["elsewhere/red.png", r"photos/b\xe9.png"]
    assert sorted(row["file"] for row in read_rows(output)) == names
    for old, new in zip(before, read_rows(output), strict=True):
        assert old | {"file": ""} == new | {"file": ""}


def test_deleted_copy_does_not_double_a_path(
    add: Add, model: tuple[Path, Path], output: Path
) -> None:
    """Without `--new`, each copy has a row."""
    shutil.copy("photos/red.png", "photos/red copy.png")
    shutil.copy("photos/red.png", "photos/red 2.png")
    run("photos", "-o", str(output), *options(model))
    before = output.read_bytes()
    for name in ("red 2", "red copy"):
        Path(f"photos/{name}.png").unlink()
        assert add() == (0, "", "")
    assert output.read_bytes() == before


def test_photos_that_swap_their_names_swap_their_paths(add: Add, output: Path) -> None:
    Path("photos/none.png").write_text("no photo")
    add()
    for old, new in (("blue", "other"), ("red", "blue"), ("none", "red"), ("other", "none")):
        Path(f"photos/{old}.png").rename(f"photos/{new}.png")
    assert add()[1].endswith("photos added: 0, moved: 3, unreadable: 0\n")
    assert sorted(read_labels(output)) == [
        ("photos/blue.png", "red"), ("photos/none.png", "blue"), ("photos/red.png", "not an image"),
    ]  # fmt: skip
    assert add() == (0, "", "")


def test_changed_photo_gets_a_second_row(add: Add, output: Path) -> None:
    add()
    paint("photos/red.png", "blue", side=22)
    assert add()[1].endswith("photos added: 1, moved: 0, unreadable: 0\n")
    assert read_labels(output)[1:] == [("photos/red.png", "red"), ("photos/red.png", "blue")]
    assert add() == (0, "", "")


def test_unreadable_photo_has_one_row_which_is_replaced(add: Add, output: Path) -> None:
    Path("photos/none.png").write_bytes(b"half a file")
    Path("photos/link.jpg").symlink_to("nowhere")
    broken_link = "photos/link.jpg: unreadable: "
    code, out, problems = add()
    assert (code, out) == (0, f"{output}: photos added: 2, moved: 0, unreadable: 1\n")
    assert problems.startswith(broken_link)
    assert "photos/none.png: not an image" in problems
    before = output.read_bytes()
    code, out, problems = add()
    assert (code, out, problems.count("\n")) == (0, "", 1)
    assert problems.startswith(broken_link)  # the file may be readable later
    assert output.read_bytes() == before
    Path("photos/none.png").rename("photos/moved.png")
    add()
    assert ("photos/moved.png", "not an image") in read_labels(output)
    paint("photos/moved.png", "green")
    assert add()[1].endswith("photos added: 1, moved: 0, unreadable: 0\n")
    assert read_labels(output)[2:] == [("photos/moved.png", "green")]


def test_nothing_to_do_is_quiet_and_a_missing_folder_is_an_error(add: Add, output: Path) -> None:
    Path("empty").mkdir()
    assert add("empty") == (0, "", "")
    assert not output.exists()
    code, _, problem = add("photos", "missing")
    assert (code, problem) == (1, "error: missing does not exist: pass other files or folders")
    assert not output.exists()


def test_two_at_once(add: Add, output: Path) -> None:
    with FileLock(output.with_name(f".{output.name}.lock")):
        code, shown, problem = add()
    assert (code, problem) == (0, "")
    assert shown == f"{output}: another process is adding photos to this file: nothing was done\n"
    assert not output.exists()


def test_link_to_an_output_stays_a_link(
    model: tuple[Path, Path], photos: Path, output: Path
) -> None:
    link = output.with_stem("link")
    link.symlink_to(output)
    assert run("photos", "--new", "-o", str(link), *options(model))[0] == 0
    assert link.is_symlink()
    assert len(read_rows(output)) == 2


@pytest.mark.parametrize(
    "change", ["model", "no hash", "other", "damaged", "cell", "not UTF-8", "column"]
)
def test_output_that_cannot_be_extended_is_refused_and_kept(
    add: Add, model: tuple[Path, Path], output: Path, change: str
) -> None:
    add()
    text, is_csv = output.read_text(), output.suffix == ".csv"
    if change == "model":
        point = json.loads(model[1].read_text())
        model[1].write_text(json.dumps(point | {"temperature": 2.0}))
    elif change == "no hash":
        output.write_text(
            "file,labels,error,red\na.png,,,0.1\n" if is_csv
            else '{"file": "a.png", "labels": [], "scores": {}, "error": null}\n'
        )  # fmt: skip
    elif change == "other":
        output.write_text("name,note\na,b\n" if is_csv else "[1]\n")
    elif change == "damaged":
        output.write_text(text + ('"x\n' if is_csv else "{\n"))
    elif change == "cell":
        output.write_text(text[:-10] + "\n")
    elif change == "not UTF-8":
        output.write_bytes(text.encode() + b"\xff")
    elif is_csv:
        output.write_text("".join(f"{line},mine\n" for line in text.splitlines()))
    else:
        return  # other keys of JSON objects are kept
    before = output.read_bytes()
    paint("photos/none.png")
    code, _, message = add()
    assert code == 1
    assert (
        "was not written by this version of `phototag predict` with this model: pass a" in message
    )
    assert output.read_bytes() == before
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--new"], "--new requires an output file"),
        (["--new", "-o", "out.txt"], "--new can add photos to csv and jsonl, not to table"),
        (["--new", "-o", "a.csv", "-f", "labelstudio"], "not to labelstudio"),
        (["--new", "-o", "a.csv", "--resume"], "omit --resume"),
        (["--new", "-o", "photos", "-f", "csv"], "photos is not a file"),
    ],
)
def test_options_that_contradict_each_other(
    model: tuple[Path, Path], photos: Path, arguments: list[str], problem: str
) -> None:
    code, _, message = run("photos", *arguments, *options(model))
    assert code == 1
    assert problem in message


@pytest.mark.parametrize("step", ["predict", "replaced"])
def test_killed_run_loses_and_doubles_nothing(
    add: Add, output: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(predictions, "BATCH", 1)
    Path("photos/aaa.png").write_text("no photo")
    paint("photos/none.png")
    add()
    whole = output.read_bytes()
    output.unlink()
    seen: list[int] = []
    killed: list[bool] = []

    def watch(tagger: Tagger, data: list[bytes | InputError]) -> list[Tags]:
        seen.append(1)
        if len(seen) == 3 and not killed:
            raise KeyboardInterrupt
        return tag_photos(tagger, data)

    monkeypatch.setattr(predictions, "tag_photos", watch)
    with monkeypatch.context() as patch:
        if step == "replaced":
            killed.append(True)
            patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        add()
    killed.append(True)
    assert output.exists() == (step == "replaced")
    (left,) = output.parent.glob(f"{output.name}.*.partial")
    if step == "predict":
        written = left.read_bytes()
        left.write_bytes(written.replace(b"{", b"", 1))
        assert f"{left.name}:1 is damaged: remove this file" in add()[2]
        left.write_bytes(written + b'{"incomplete')
    seen.clear()
    paint("photos/green.png")
    assert add()[0] == 0
    assert len(seen) == (3 if step == "predict" else 1)
    lines = [line for line in output.read_bytes().splitlines() if b"green.png" not in line]
    assert sorted(lines) == sorted(whole.splitlines())
    assert len(output.read_bytes().splitlines()) == len(lines) + 1
    assert not left.exists()


def _predict_new(folder: Path, arguments: list[str]) -> None:
    from phototag.cli import app

    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pytest.MonkeyPatch().setattr(predictions, "BATCH", 1)
    sys.argv = ["phototag", "predict", *arguments]
    app()


@pytest.mark.soak
@pytest.mark.slow
def test_kills_at_any_moment_lose_and_double_nothing(
    add: Add, model: tuple[Path, Path], output: Path
) -> None:
    """Real processes are killed after random times while photos are added, moved and broken."""
    arguments = ["photos", "--new", "-o", str(output), *options(model)]
    expected: dict[str, str] = {}
    killed = 0
    for number in range(40):
        for more in range(3):
            side = 30 + 3 * number + more
            color = ("blue", "red", "green")[more]
            photo = paint(f"photos/{color} {number}.png", side=side)
            expected[hashlib.sha256(photo.read_bytes()).hexdigest()] = color
        (Path("photos") / f"broken {number}.png").write_text(f"no photo {number}")
        if number % 3 == 2:
            Path(f"photos/red {number - 1}.png").rename(f"photos/red moved {number}.png")
        process = fork(_predict_new, Path.cwd(), arguments)
        process.join(0.02 + 0.05 * (number % 12))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if output.exists():
            rows = read_rows(output)
            readable = [row["sha256"] for row in rows if not row["error"]]
            assert len(set(readable)) == len(readable)
            assert len({row["file"] for row in rows}) == len(rows)
    assert killed > 5
    assert add()[0] == 0
    rows = read_rows(output)
    found = [(row["sha256"], row["labels"][0] if isinstance(row["labels"], list) else row["labels"])
             for row in rows if not row["error"]]  # fmt: skip
    for name in ("blue", "red"):
        expected[hashlib.sha256(Path(f"photos/{name}.png").read_bytes()).hexdigest()] = name
    assert sorted(found) == sorted(expected.items())
    assert sum(bool(row["error"]) for row in rows) == 40
    assert sorted(row["file"] for row in rows) == sorted(map(str, Path("photos").iterdir()))
    assert not list(output.parent.glob("*.partial"))
    assert add() == (0, "", "")
