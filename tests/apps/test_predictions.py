import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from phototag.apps import predictions
from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.data.dataset import Dataset
from phototag.intake.images import prepare_photo
from phototag.network.inference import pick_device, predict_logits
from phototag.network.metrics import sigmoid
from phototag.serving.tagger import BATCH, Tagger, load_tagger, read_photo, tag_photos
from tests.models import LABELS, make_model

COLORS = {"blue": (200, 0, 0), "green": (0, 200, 0), "red": (0, 0, 200), "none": (50, 50, 50)}


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    return make_model(tmp_path / "model")


@pytest.fixture
def tagger(model: tuple[Path, Path]) -> Tagger:
    return load_tagger(*model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """im1, im2 and im10, of one colour each, and a file that is no photo."""
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


def test_leftovers_in_a_folder_are_counted_and_not_tagged(
    model: tuple[Path, Path], photos: Path
) -> None:
    (photos / "@eaDir").mkdir()
    (photos / "folder.jpg").mkdir()
    for name in ("._im1.png", "@eaDir/im1.png", ".DS_Store"):
        (photos / name).write_bytes(b"\0\5\x16\7")
    code, out, err = run(str(photos), "-f", "csv", *options(model))
    assert code == 0
    names = [Path(line.split(",")[0]).name for line in out.splitlines()[1:]]
    assert names == ["im1.png", "im2.png", "im3.jpg", "im10.png"]
    assert "2 files of operating systems and tools were passed over (such as" in err


def test_scores_are_those_of_the_evaluate_stage(tagger: Tagger) -> None:
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
    # One at a time as in a batch.
    alone = [list(tag_photos(tagger, [photo])[0].scores.values()) for photo in data[:5]]
    np.testing.assert_allclose(alone, expected[:5], atol=1e-5)


def test_temperature_and_thresholds_are_applied(model: tuple[Path, Path], photos: Path) -> None:
    plain = load_tagger(*model)
    point = {"temperature": 4.0, "thresholds": {"blue": 0.999, "green": 0.0, "red": 0.5}}
    model[1].write_text(json.dumps(point))
    tagger = load_tagger(*model)
    blue = read_photo(photos / "im1.png")
    (before,), (after,) = tag_photos(plain, [blue]), tag_photos(tagger, [blue])
    logit = np.log(before.scores["blue"] / (1 - before.scores["blue"]))
    assert after.scores["blue"] == pytest.approx(1 / (1 + np.exp(-logit / 4)))
    assert (before.labels, after.labels) == (["blue"], ["green"])


def test_a_bad_photo_leaves_the_others_alone(tagger: Tagger, photos: Path) -> None:
    names = ["im1.png", "im3.jpg", "missing.jpg", "im10.png"]
    first, text, missing, last = tag_photos(tagger, [read_photo(photos / name) for name in names])
    assert (first.labels, last.labels) == (["blue"], ["red"])
    assert (text.labels, text.scores) == ([], {})
    assert "not an image" in str(text.error)
    assert "No such file" in str(missing.error)


def test_sources_are_files_folders_patterns_and_lists(photos: Path) -> None:
    def find(*sources: str, listed: str = "") -> list[str]:
        return [Path(name).name for name in predictions.find_photos(sources, io.StringIO(listed))]

    assert find(str(photos)) == ["im1.png", "im2.png", "im3.jpg", "im10.png"]
    assert find(str(photos / "*.png")) == ["im1.png", "im2.png", "im10.png"]
    assert find(str(photos / "im2.png"), str(photos)) == [
        "im2.png",
        "im1.png",
        "im3.jpg",
        "im10.png",
    ]
    assert find("-", listed="b.jpg\n\na b.jpg\n") == ["b.jpg", "a b.jpg"]
    odd = photos / "im[7].png"
    odd.write_bytes((photos / "im1.png").read_bytes())
    assert find(str(odd)) == ["im[7].png"]
    for empty in (str(photos / "*.gif"), "-"):
        with pytest.raises(InputError, match="holds no photo"):
            find(empty)


def test_table_and_bad_files(model: tuple[Path, Path], photos: Path) -> None:
    code, out, _ = run(str(photos), *options(model))
    lines = out.splitlines()
    assert code == 0
    assert [Path(line.split()[0]).name for line in lines] == [
        "im1.png",
        "im2.png",
        "im3.jpg",
        "im10.png",
    ]
    assert "  blue 1.00" in lines[0]
    assert "(no label)" in lines[1]
    assert "not an image" in lines[2]
    code, _, problem = run(str(photos / "im3.jpg"), *options(model))
    assert code != 0
    assert "not one of these files" in problem


def test_csv_json_and_results(model: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    _, out, problems = run(str(photos), "-f", "csv", *options(model))
    table = pd.read_csv(io.StringIO(out), keep_default_na=False)
    assert list(table.columns) == ["file", "labels", "error", *LABELS]
    assert table["labels"].tolist() == ["blue", "", "", "red"]
    assert "im3.jpg: not an image" in problems

    _, out, _ = run(str(photos), "-f", "jsonl", *options(model))
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["labels"] for row in rows] == [["blue"], [], [], ["red"]]
    assert list(rows[0]["scores"]) == LABELS
    assert rows[2]["error"].startswith("not an image")

    _, out, _ = run(
        "-", "-f", "results", *options(model), stdin=f"{photos}/im10.png\n{photos}/im1.png\n"
    )
    assert out == "1 0 0\n0 0 1\n"
    _, out, _ = run(str(photos), "-f", "results", *options(model))
    assert out.splitlines() == ["1 0 0", "0 0 0", "0 0 0", "0 0 1"]
    nameless = photos / "cat.png"
    nameless.write_bytes((photos / "im1.png").read_bytes())
    assert "this name has none" in run(str(nameless), "-f", "results", *options(model))[2]


def test_output_is_a_new_file(model: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.txt"
    arguments = [str(photos), "-f", "results", "-o", str(output), *options(model)]
    assert run(*arguments)[0] == 0
    assert output.read_text().splitlines()[0] == "1 0 0"
    before = output.read_bytes()
    assert "exists already" in run(*arguments)[2]
    assert output.read_bytes() == before


def test_thresholds_of_another_model_are_refused(model: tuple[Path, Path]) -> None:
    for text, problem in (
        ('{"temperature": 1, "thresholds": {"cat": 0.5}}', "blue"),
        ("[]", "holds no thresholds"),
        ("no json", "holds no thresholds"),
    ):
        model[1].write_text(text)
        with pytest.raises(InputError, match=problem):
            load_tagger(*model)
    model[1].unlink()
    with pytest.raises(InputError, match="dvc repro evaluate"):
        load_tagger(*model)


@pytest.mark.slow
def test_predict_imports_neither_mlflow_nor_what_trains(
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
