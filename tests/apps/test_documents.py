"""Label Studio tasks, and predictions that `phototag import` reads."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from typer.testing import CliRunner

from phototag.apps.formats import FORMATS, Row
from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.importers.importer import import_photos
from phototag.serving.tagger import load_tagger, read_photo, tag_photos
from tests.importers.imports import paint, run_import, write
from tests.models import LABELS, make_model

COLORS = {"blue": (200, 0, 0), "green": (0, 200, 0), "red": (0, 0, 200), "none": (50, 50, 50)}


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Path]:
    return make_model(tmp_path / "model")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a photo of each colour and two unreadable files."""
    for name, color in COLORS.items():
        (tmp_path / "my photos").mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), color).save(tmp_path / f"my photos/{name} ö.png")
    (tmp_path / "my photos/broken.jpg").write_text("no photo")
    half = tmp_path / "my photos/half.jpg"  # its header is readable
    Image.radial_gradient("L").save(half)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(
    model: tuple[Path, Path], format_: str, *more: str, sources: Sequence[str] = ("my photos",)
) -> str:
    paths = ["--model", str(model[0]), "--thresholds", str(model[1])]
    shown = CliRunner().invoke(typer_app, ["predict", *sources, "-f", format_, *paths, *more])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def read_scores(model: tuple[Path, Path], name: str) -> dict[str, float]:
    (tags,) = tag_photos(load_tagger(*model), [read_photo(name)])
    return tags.scores


def test_file_equals_printed_document(model: tuple[Path, Path], folder: Path) -> None:
    predict(model, "labelstudio", "-o", "out.json")
    text = Path("out.json").read_text(encoding="utf-8")
    assert predict(model, "labelstudio") == text
    assert not list(folder.glob("*.partial"))


def test_label_studio_tasks_have_choices(model: tuple[Path, Path], folder: Path) -> None:
    tasks: list[dict[str, Any]] = json.loads(predict(model, "labelstudio"))
    assert len(tasks) == len(COLORS)
    found = {task["data"]["image"]: task["predictions"] for task in tasks}
    for name in COLORS:
        (prediction,) = found[f"/data/local-files/?d=my%20photos/{name}%20%C3%B6.png"]
        scores = read_scores(model, f"my photos/{name} ö.png").values()
        assert prediction["score"] == pytest.approx(min(max(s, 1 - s) for s in scores))
        if name == "none":
            assert prediction["result"] == []
            continue
        (result,) = prediction["result"]
        assert result["value"] == {"choices": [name]}
        names = [result[key] for key in ("type", "from_name", "to_name")]
        assert names == ["choices", "labels", "image"]


@pytest.mark.parametrize(
    ("given", "root"),
    [
        (["my photos/red ö.png", "./my photos/../my photos/blue ö.png"], "."),
        (["my photos/red ö.png", "../beside.png"], "/"),
        (["my photos/red ö.png", "{folder}/my photos/blue ö.png"], "/"),
    ],
)
def test_label_studio_paths_share_one_root(
    model: tuple[Path, Path], folder: Path, given: list[str], root: str
) -> None:
    Path("inner").mkdir()
    (folder / "my photos").rename("inner/my photos")
    shutil.copy("inner/my photos/red ö.png", "beside.png")
    os.chdir("inner")
    names = [name.format(folder=Path.cwd()) for name in given]
    tasks = json.loads(predict(model, "labelstudio", sources=names))
    parts = [unquote(task["data"]["image"].partition("?d=")[2]) for task in tasks]
    found = [Path(root, part).resolve() for part in parts]
    assert found == [Path(name).resolve() for name in names]
    # Label Studio serves neither absolute paths nor paths that lead out of its root.
    assert not any(part.startswith("/") or ".." in part for part in parts)


ORIGIN = {"sha256": "ab12", "model_key": "cd34"}
NAMES = [
    "@user.png", "=1+1.png", "+a.png", "-b.png", "'c.png", "été.png", "猫 \u2028 .png", "a\nb.png",
    "a\rb.png", "tab\t.png", 'a"b,c;d.png', "a\\b.png", "100%25.png", "a#b&c+d?.png",
    os.fsdecode(b"caf\xe9.png"), "sub/a.png", "no label.png",
]  # fmt: skip


@pytest.mark.parametrize("labels", [["red sofa", "=x", "été, nuit"], ["a;b", "[c", "no"]])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "labelstudio"])
def test_predictions_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str, labels: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows: list[Row] = []
    for number, name in enumerate(NAMES):
        paint(Path(name), number)
        scores = {label: float(number >> bit & 1) for bit, label in enumerate(labels)}
        found = [label for label in labels if scores[label]] if "no" not in name else []
        rows.append({"labels": found, "scores": scores, "error": None} | ORIGIN)
    Path("broken.png").write_text("no photo")
    failed = {"labels": [], "scores": {}, "error": "not an image"} | ORIGIN
    text = "".join(FORMATS[format_]([*NAMES, "broken.png"], labels, [*rows, failed]))
    if format_ == "labelstudio":
        with pytest.raises(InputError, match="no photo has a label"):
            run_import(write(Path("out.json"), text), Path("raw"))
        # Label Studio exports this if a person accepts every prediction.
        tasks = json.loads(text)
        for task in tasks:
            task["annotations"] = task.pop("predictions")
        text = json.dumps(tasks)
    suffix = format_ if format_ in ("csv", "jsonl") else "json"
    Path(f"out.{suffix}").write_bytes(text.encode())
    summary = import_photos(Path(f"out.{suffix}"), Path("raw"))
    imported = {Path(photo.path).resolve(): sorted(photo.labels) for photo in summary.photos}
    expected = zip(NAMES, rows, strict=True)
    assert imported == {Path(name).resolve(): sorted(row["labels"]) for name, row in expected}
    assert (summary.count_unknown(), summary.notes) == ({}, [])


def test_unreadable_files_give_an_empty_list() -> None:
    failed = {"labels": [], "scores": {}, "error": "not an image"}
    assert "".join(FORMATS["labelstudio"](["a.png"], LABELS, [failed])) == "[]\n"
