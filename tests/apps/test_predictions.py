import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from phototag.apps import photo_files, predictions
from phototag.apps.formats import as_csv, as_jsonl, as_table
from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.dataset.dataset import Dataset
from phototag.decoding.photos import prepare_photo
from phototag.evaluation.targets import ABSTAIN
from phototag.metrics.losses import sigmoid
from phototag.network.inference import pick_device, predict_logits
from phototag.network.runtime import Session
from phototag.network.weights import SYNTHETIC
from phototag.serving.tagger import (
    BATCH,
    Tagger,
    Tags,
    load_tagger,
    read_photo,
    tag_photos,
)
from tests.forks import run_forked
from tests.models import LABELS, make_backbone, make_model

COLORS = {"blue": (200, 0, 0), "green": (0, 200, 0), "red": (0, 0, 200), "none": (50, 50, 50)}


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    return make_model(tmp_path / "model")


@pytest.fixture
def tagger(model: tuple[Path, Path]) -> Tagger:
    return load_tagger(*model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with im1, im2 and im10, each of one colour, and two files that are not photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in ((1, "blue"), (2, "none"), (10, "red")):
        Image.new("RGB", (30, 20), COLORS[name]).save(folder / f"im{number}.png")
    (folder / "im3.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("neither")
    return folder


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(typer_app, ["predict", *arguments], input=stdin)
    problem = f"error: {result.exception}" if isinstance(result.exception, InputError) else ""
    return result.exit_code, result.stdout, result.stderr + problem


def options(model: tuple[Path, Path]) -> list[str]:
    return ["--model", str(model[0]), "--thresholds", str(model[1])]


def test_scores_equal_those_of_the_evaluate_stage(tagger: Tagger) -> None:
    rng = np.random.default_rng(0)
    data = []
    for _ in range(2 * BATCH + 3):
        file = io.BytesIO()
        side = int(rng.integers(16, 40))
        Image.fromarray(rng.integers(0, 256, (side, 30, 3), np.uint8)).save(file, "JPEG")
        data.append(file.getvalue())
    pixels = np.stack([photo for d in data if (photo := prepare_photo(d, 16).pixels) is not None])
    targets, names = np.zeros((len(data), 3), np.uint8), [""] * len(data)
    packed = Dataset(pixels, np.arange(len(data)), targets, LABELS, names, names)
    expected = sigmoid(predict_logits(tagger.network, packed, pick_device()))
    found = [list(tags.scores.values()) for tags in tag_photos(tagger, data)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # A photo alone gets the same scores as in a batch.
    alone = [list(tag_photos(tagger, [photo])[0].scores.values()) for photo in data[:5]]
    np.testing.assert_allclose(alone, expected[:5], atol=1e-5)


def test_temperature_and_thresholds_are_applied(model: tuple[Path, Path], photos: Path) -> None:
    plain = load_tagger(*model)
    point: dict[str, Any] = {
        "temperature": 4.0,
        "thresholds": {"blue": 0.999, "green": 0.0, "red": 0.5},
    }
    model[1].write_text(json.dumps(point))
    tagger = load_tagger(*model)
    blue = read_photo(photos / "im1.png")
    (before,), (after,) = tag_photos(plain, [blue]), tag_photos(tagger, [blue])
    logit = np.log(before.scores["blue"] / (1 - before.scores["blue"]))
    assert after.scores["blue"] == pytest.approx(1 / (1 + np.exp(-logit / 4)))
    assert (before.labels, after.labels) == (["blue"], ["green"])
    point["thresholds"]["green"] = ABSTAIN
    model[1].write_text(json.dumps(point))
    assert tag_photos(load_tagger(*model), [blue])[0].labels == []


def test_unreadable_photo_does_not_affect_others(tagger: Tagger, photos: Path) -> None:
    names = ["im1.png", "im3.jpg", "missing.jpg", "im10.png"]
    first, text, missing, last = tag_photos(tagger, [read_photo(photos / name) for name in names])
    assert (first.labels, last.labels) == (["blue"], ["red"])
    assert (text.labels, text.scores) == ([], {})
    assert "not an image" in str(text.error)
    assert "No such file" in str(missing.error)


def find(*sources: str, listed: bytes = b"", report: Callable[[str], object] = str) -> list[str]:
    return photo_files.find_photos(sources, io.BytesIO(listed), report)


def test_find_photos_of_files_and_folders(photos: Path) -> None:
    (photos / "@eaDir").mkdir()
    (photos / "folder.jpg").mkdir()
    for name in ("._im1.png", "@eaDir/im1.png", ".DS_Store"):  # system files
        (photos / name).write_bytes(b"\0\5\x16\7")
    names = ["im1.png", "im10.png", "im2.png", "im3.jpg"]
    assert find(str(photos)) == [str(photos / name) for name in names]
    assert find(f"{photos}/im2.png", str(photos))[:2] == [f"{photos}/im2.png", f"{photos}/im1.png"]
    for name in ("im4", "im5.jpg_large", "im6.jpg!d"):  # the content decides
        shutil.copy(photos / "im1.png", photos / name)
    (photos / "im7").symlink_to(photos.parent / "elsewhere.png")
    messages: list[str] = []
    found = find(str(photos), report=messages.append)
    assert found == [str(photos / name) for name in (*names, "im4", "im5.jpg_large", "im6.jpg!d")]
    assert messages == [f"{photos}: skipped files that are not photos: 2, such as im7"]
    (photos / "empty").mkdir()
    for empty in (str(photos / "empty"), "-"):
        with pytest.raises(InputError, match="no photos found"):
            find(empty)


def test_table_shows_labels_and_errors(model: tuple[Path, Path], photos: Path) -> None:
    code, out, _ = run(str(photos), *options(model))
    lines = out.splitlines()
    assert code == 0
    shown = ["blue 1.00", "red 1.00", "(no label)", "not an image"]
    assert [text in line for line, text in zip(lines, shown, strict=True)] == [True] * 4
    output = photos.parent / "out"
    for more in ([], ["-o", str(output)]):
        code, _, problem = run(str(photos / "im3.jpg"), *more, *options(model))
        assert code != 0
        assert "none of these files" in problem
    assert "not an image" in output.read_text()
    row = {"labels": ["\x1b"], "scores": {"\x1b": 0.5}, "error": None}
    assert list(as_table(["a\n.png", "b.png"], ["\x1b"], [row, row])) == [
        "a\\n.png  \\x1b 0.50\n",
        "b.png    \\x1b 0.50\n",
    ]


def test_csv_and_jsonl_formats(model: tuple[Path, Path], photos: Path) -> None:
    _, out, problems = run(str(photos), "-f", "csv", *options(model))
    table = pd.read_csv(io.StringIO(out), keep_default_na=False)
    columns = ["file", "labels", "error", "sha256", "model_key", "familiarity"]
    assert list(table.columns) == [*columns, *LABELS]
    assert set(table["familiarity"]) == {""}  # an older version wrote the model
    contents = [(photos / name).read_bytes() for name in ("im1.png", "im10.png", "im2.png")]
    assert table["sha256"].tolist()[:3] == [hashlib.sha256(data).hexdigest() for data in contents]
    assert table["labels"].tolist() == ["blue", "red", "", ""]
    assert "im3.jpg: not an image" in problems

    _, out, _ = run(str(photos), "-f", "jsonl", *options(model))
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["labels"] for row in rows] == [["blue"], ["red"], [], []]
    assert list(rows[0]["scores"]) == LABELS
    assert rows[3]["error"].startswith("not an image")


def test_photos_unlike_anything_in_training_are_marked(tmp_path: Path, photos: Path) -> None:
    """The reference has photos of noise, and the photos in the folder are of one colour."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8)
    model = make_model(tmp_path / "familiar", photos=noise)
    Image.fromarray(noise[0]).save(photos / "im11.png")
    names = [str(photos / f"im{number}") for number in ("1.png", "3.jpg", "11.png")]
    _, out, _ = run(*names, *options(model))
    assert [line.endswith(" (unlike anything in training)") for line in out.splitlines()] == [
        True,
        False,
        False,
    ]
    _, out, _ = run(*names, "-f", "csv", *options(model))
    blue, text, same = pd.read_csv(io.StringIO(out))["familiarity"]
    assert (blue, math.isnan(text)) == (0, True)
    assert same > 1
    _, out, _ = run(*names, "-f", "jsonl", *options(model))
    found = [json.loads(line)["familiarity"] for line in out.splitlines()]
    assert found == [0, None, pytest.approx(same, abs=1e-4)]
    _, out, _ = run(*names, "-f", "labelstudio", *options(model))
    tasks = json.loads(out)
    assert [task["data"]["familiarity"] for task in tasks] == [found[0], found[2]]


def test_existing_output_is_refused(model: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("mine")
    arguments = [str(photos), "-f", "csv", "-o", str(output), *options(model)]
    assert "already exists" in run(*arguments)[2]
    assert output.read_text() == "mine"


ODD = {
    "no UTF-8": (b"caf\xe9 1.png", r"caf\xe9 1.png"),
    "accents": ("été 2.png".encode(), "été 2.png"),
    "line break": (b"a\nb 3.png", r"a\nb 3.png"),
    "tab": (b"a\tb 4.png", r"a\tb 4.png"),
    "carriage return": (b"a\rb 5.png", r"a\rb 5.png"),
    "terminal's": (b"a\x1b[31mb 6.png", r"a\x1b[31mb 6.png"),
    "formula": (b"=1+1 7.png", "=1+1 7.png"),
    "quote and comma": (b'"a",b 8.png', '"a",b 8.png'),
    "paragraph": ("a\u2029b 9.png".encode(), r"a\u2029b 9.png"),
}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos of unusual names and one file that is not a photo."""
    folder = tmp_path / "odd"
    folder.mkdir()
    file = io.BytesIO()
    Image.new("RGB", (30, 20), COLORS["blue"]).save(file, "PNG")
    for name, _ in ODD.values():
        (folder / os.fsdecode(name)).write_bytes(file.getvalue())
    (folder / os.fsdecode(b"\xff\n10.png")).write_text("no photo")
    monkeypatch.chdir(folder)
    return folder


SHOWN = [shown for _, shown in ODD.values()]


@pytest.mark.parametrize("format_", ["table", "csv", "jsonl"])
def test_unusual_names_are_exact_in_files_and_escaped_in_a_table(
    model: tuple[Path, Path], odd: Path, tmp_path: Path, format_: str
) -> None:
    names = [os.fsdecode(name) for name, _ in ODD.values()] + [os.fsdecode(b"\xff\n10.png")]
    output = tmp_path / "out"
    code, _, problems = run(*names, "-f", format_, "-o", str(output), *options(model))
    assert code == 0
    # A table has the message in the line of the photo.
    assert (r"\xff\n10.png: not an image" in problems) == (format_ != "table")
    _, shown, _ = run(*names, "-f", format_, *options(model))
    text = output.read_bytes().decode()
    assert shown == text
    lines = text.removesuffix("\n").split("\n")
    if format_ == "table":
        assert len(lines) == len(names)
        assert [line[: len(name)] for line, name in zip(lines, SHOWN, strict=False)] == SHOWN
        return
    files = [json.loads(line)["file"] for line in lines] if format_ == "jsonl" else None
    files = files or pd.read_csv(output)["file"].tolist()
    assert files[0] == r"caf\xe9 1.png"
    assert files[1:-1] == names[1:-1]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_unusual_names_are_printed_in_any_encoding(
    model: tuple[Path, Path], odd: Path, encoding: str
) -> None:
    def predict(photos: str, *more: str) -> tuple[int, bytes, bytes]:
        return run_forked(["predict", photos, *options(model), *more], encoding)

    # CSV and JSON lines are UTF-8 in every terminal.
    for format_ in ("table", "csv", "jsonl") if encoding == "ascii" else ("table", "csv"):
        code, out, stderr = predict(".", "-f", format_)
        assert code == 0
        assert "Traceback" not in stderr.decode(encoding)
        text = out.decode(encoding if format_ == "table" else "utf-8")
        lines = text.removesuffix("\n").split("\n")
        rows = list(csv.reader(io.StringIO(text, newline=""))) if format_ == "csv" else lines
        assert len(rows) == 10 + (format_ == "csv")
    Path(os.fsdecode(b"\xff")).mkdir()
    code, _, stderr = predict(os.fsdecode(b"\xff"))
    assert code == 1
    assert stderr.decode("ascii").startswith(r"error: \xff: no photos found")


def test_list_of_paths_may_have_any_line_ends_or_nul() -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    assert find("-", listed=b"a.png\n\nb c.png\n") == ["a.png", "b c.png"]
    assert find("-", listed=b"a.png\r\n\r\nb.png") == ["a.png", "b.png"]
    assert find("-", listed=b"\xef\xbb\xbfa.png\r\n") == ["a.png"]
    assert find("-", listed=b"a\nb.png\0caf\xe9.png\0") == ["a\nb.png", odd]


def test_labels_named_like_columns_get_score_columns() -> None:
    origin = {"sha256": "ab12", "model_key": None, "familiarity": 12.5}
    scores = {"error": 0.75, "Model_Key": 0.25, "=x": 0.5}
    row = {"labels": ["error"], "scores": scores, "error": None} | origin
    labels = ["error", "Model_Key", "=x"]
    (cells,) = csv.DictReader(as_csv(["a.png"], labels, [row]))
    assert dict(cells) == {
        "file": "a.png",
        "labels": "error",
        "error": "",
        "sha256": "ab12",
        "model_key": "",
        "familiarity": "12.5000",
        "score:error": "0.750000",
        "score:Model_Key": "0.250000",
        "score:=x": "0.500000",
    }
    row = {"labels": ["=x"], "scores": {"=x": 0.5, "cat": 0.25}, "error": None} | origin
    assert list(as_csv(["-a.png"], ["=x", "cat"], [row])) == [
        "file,labels,error,sha256,model_key,familiarity,=x,cat\n",
        "-a.png,=x,,ab12,,12.5000,0.500000,0.250000\n",
    ]
    (line,) = as_jsonl(["a.png"], labels, [row])
    assert json.loads(line) == {"file": "a.png"} | row


@pytest.mark.parametrize("format_", ["table", "csv", "jsonl", "labelstudio"])
@pytest.mark.parametrize("cut", [0, 1])
def test_resumed_run_writes_the_same_bytes(
    model: tuple[Path, Path],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format_: str,
    cut: int,
) -> None:
    monkeypatch.setattr(predictions, "BATCH", 1)
    arguments = [str(photos), "-f", format_, *options(model)]
    assert run(*arguments, "-o", str(tmp_path / "whole"))[0] == 0
    seen: list[int] = []

    def kill(tagger: Tagger, data: list[bytes | InputError]) -> list[Tags]:
        seen.append(len(data))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return tag_photos(tagger, data)

    output = tmp_path / "out.csv"
    monkeypatch.setattr(predictions, "tag_photos", kill)
    assert run(*arguments, "-o", str(output))[0] != 0
    assert not output.exists()
    (left,) = tmp_path.glob("out.csv.*.partial")
    assert left.read_bytes().count(b"\n") == 2  # every finished photo is in the file
    # `kill -9` may leave an incomplete line.
    left.write_bytes(left.read_bytes()[: -3 if cut else None])
    seen.clear()
    seen += [0, 0, 0]
    assert "add --resume" in run(*arguments, "-o", str(output))[2]
    code, _, problems = run(*arguments, "-o", str(output), "--resume")
    assert code == 0
    assert f"resumed: {2 - cut} photos were already predicted" in problems
    assert seen[3:] == [1] * (2 + cut)  # only the missing photos
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_worker_processes_give_the_same_output(
    model: tuple[Path, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setattr(predictions, "BATCH", 1)
    found = []
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, dask.config.set({"scheduler-address": cluster.scheduler_address}):
        for backend in ("sequential", "loky", "dask"):
            output = tmp_path / f"{backend}.csv"
            more = ["-f", "csv", "--backend", backend, "-o", str(output)]
            assert run(".", *options(model), *more)[0] == 0
            found.append(output.read_bytes())
        with distributed.Client(cluster) as client:
            done = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert sum(done.values()) > 0
    assert found[0] == found[1] == found[2]
    assert len(found[0].splitlines()) == 5


@pytest.mark.slow
def test_many_photos_use_one_session_of_onnx_runtime(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger = load_tagger(*make_backbone(tmp_path / "backbone"))
    names = [str(photos / f"im{number}.png") for number in (1, 2, 10)]
    few = list(predictions.predict(tagger, names))
    ran: list[object] = []

    def watch(tagger: Tagger, photos: list[bytes | InputError]) -> list[Tags]:
        ran.append(tagger.network)
        return tag_photos(tagger, photos)

    monkeypatch.setattr(predictions, "tag_photos", watch)
    monkeypatch.setattr(predictions, "MANY", 3)
    monkeypatch.setattr(predictions, "BATCH", 1)
    many = list(predictions.predict(tagger, names, "threading"))
    assert isinstance(ran[0], Session)
    assert len(set(map(id, ran))) == 1  # the threads share it
    for one, two in zip(few, many, strict=True):
        assert two["scores"] == pytest.approx(one["scores"], abs=1e-4)
    # A resumed run uses the same runtime although fewer photos are left.
    assert len(list(predictions.predict(tagger, names, done=2))) == 1
    assert isinstance(ran[-1], Session)


@pytest.mark.parametrize("more", [["-f", "table"], ["-o", "out.csv"], ["-f", "xmp"]])
def test_path_that_does_not_exist_is_an_error_after_the_other_photos(
    model: tuple[Path, Path], photos: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    """A shell passes on a pattern that matches no file; a damaged photo is no error."""
    monkeypatch.chdir(photos)
    code, out, problems = run("im1.png", "*.gif", "im3.jpg", *more, *options(model))
    assert code == 1
    assert "error: paths that do not exist: 1, such as *.gif: correct them" in problems
    written = Path("out.csv").read_text() if "-o" in more else out
    assert "im1.png" in written or Path("im1.png.xmp").exists()
    assert run("-", *options(model), stdin="gone.png\n")[0] == 1


def test_damaged_line_of_a_killed_run_is_reported(
    model: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    job = predictions.PredictionJob(load_tagger(*model), find(str(photos)), "csv", print)
    left = job.unfinished_path(output)
    for text in (b"\xff\n", b"3\n", b"{}\n", b"[" * 100_000 + b"\n"):
        left.write_bytes(text)
        code, _, problems = run(str(photos), "-o", str(output), "--resume", *options(model))
        assert code == 1
        assert f"{left.name}:1 is damaged: remove this file" in problems
        assert not output.exists()


def test_run_of_other_photos_or_model_is_not_resumed(
    model: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    def place(*names: str) -> Path:
        job = predictions.PredictionJob(load_tagger(*model), find(*names), "csv", print)
        return job.unfinished_path(tmp_path / "out")

    before = place(str(photos))
    assert place(str(photos)) == before
    assert place(str(photos / "im1.png")) != before
    point = json.loads(model[1].read_text()) | {"temperature": 2.0}
    model[1].write_text(json.dumps(point))
    assert place(str(photos)) != before
    before.write_text("{}\n")
    output = ["-o", str(tmp_path / "out"), "--resume"]
    code, _, problems = run(str(photos), "-f", "csv", *output, *options(model))
    assert code == 0
    assert "resumed: 0 photos were already predicted" in problems
    assert "add --output FILE" in run(str(photos), "--resume", *options(model))[2]


def test_origin_of_the_model_is_printed_to_stderr(photos: Path, tmp_path: Path) -> None:
    drawn = make_model(tmp_path / "drawn", source=SYNTHETIC)
    code, out, stderr = run(str(photos / "im1.png"), *options(drawn))
    assert (code, len(out.splitlines())) == (0, 1)  # not in what programs read
    assert "40 synthetic images only" in stderr
    real = make_model(tmp_path / "real", source="data/raw.zip")
    assert (
        "trained on 40 photos from data/raw.zip." in run(str(photos / "im1.png"), *options(real))[2]
    )


def test_thresholds_of_another_model_are_refused(model: tuple[Path, Path]) -> None:
    point = json.loads(model[1].read_text())
    del point["content_key"]
    model[1].write_text(json.dumps(point))
    load_tagger(*model)  # files of older versions have no key
    with pytest.raises(InputError, match="Is a directory"):
        load_tagger(model[0], model[0].parent)
    for text, problem in (
        ('{"temperature": 1, "thresholds": {"cat": 0.5}}', "blue"),
        ("[]", "TypeError"),
        ("no json", "is not valid JSON"),
        (json.dumps(point | {"thresholds": dict.fromkeys(LABELS)}), "TypeError"),
        (json.dumps(point | {"temperature": math.nan}), "not finite"),
        (json.dumps(point | {"content_key": "other"}), "belong to different trainings"),
    ):
        model[1].write_text(text)
        with pytest.raises(InputError, match=problem):
            load_tagger(*model)
    model[1].unlink()
    with pytest.raises(InputError, match="dvc repro evaluate"):
        load_tagger(*model)


@pytest.mark.slow
def test_predict_imports_neither_mlflow_nor_training_libraries(
    model: tuple[Path, Path], photos: Path
) -> None:
    code = (
        "import sys; from phototag.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    command = [sys.executable, "-c", code, "predict", str(photos / "im1.png"), *options(model)]
    out = subprocess.check_output(command, text=True)
    assert "blue 1.00" in out
    modules = set(re.findall(r"'(\w+)'", out.splitlines()[-1]))
    assert "torch" in modules
    assert not modules & {"mlflow", "dvc", "matplotlib", "sklearn", "torchvision"}
