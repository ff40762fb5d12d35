"""A linear probe on a transformer with random weights, from packed photos to the served model."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from phototag.base.files import read_json, write_json
from phototag.cli import typer_app
from phototag.experiments.recipes import update_params
from phototag.metrics.losses import sigmoid
from phototag.network.weights import load_model
from phototag.tracking.recipes import read_recipes, recipe_params
from stages import embed, evaluate, reference, register, train
from tests.projects import ROOT

pytestmark = pytest.mark.slow
# A small backbone with a class token, four registers and four patches.
SMALL: dict[str, Any] = {
    "resize.size": 32,
    "model.name": "timm/vit_tiny_patch16_dinov3_qkvb",
    "model.global_pool": "mean-max",
}


def test_probe_gives_the_same_probabilities_everywhere(
    project: Path,
    store: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    timm = pytest.importorskip("timm")
    settings = recipe_params(read_recipes(ROOT / "recipes.yaml"), "hub") | SMALL
    settings |= {"model.weights": "w.pt", "epochs": 2, "evaluate.resamples": 20}
    update_params(project / "params.yaml", settings)
    monkeypatch.chdir(project)
    torch.manual_seed(0)
    name = settings["model.name"].removeprefix("timm/")
    state = timm.create_model(name).state_dict()
    for key in state:
        if "gamma" in key:  # LayerScale starts near 0, so that photos would hardly differ
            torch.nn.init.ones_(state[key])
    torch.save(state, "w.pt")
    summary = {"renamed_labels": {}, "files": 48, "decisions": {}}
    summary |= {"duplicate_photos": 0, "unlabelled": 0}
    write_json(Path("reports/resize/summary.json"), summary)
    for stage in (embed, train, evaluate, reference, register):
        stage.main()
    assert "note: PyTorch is used" not in capsys.readouterr().err

    photos = np.load("data/images.npy", mmap_mode="r")[:5]
    pixels = torch.from_numpy(photos.copy()).permute(0, 3, 1, 2)
    network, metadata = load_model(Path("models/model.safetensors"))
    assert (metadata.size, metadata.network_size) == (16, settings["resize.size"])
    temperature = read_json(Path("reports/evaluate/thresholds.json"))["temperature"]
    with torch.inference_mode():
        np.testing.assert_allclose(network[:2](pixels), np.load("data/features.npy")[:5], atol=1e-4)
        expected = sigmoid(network(pixels).numpy() / temperature)
    assert np.ptp(expected, axis=0).min() > 1e-3  # equal photos would make the comparison useless

    page = Path("reports/evaluate/report.html").read_text()
    assert "There are no heat maps (Grad-CAM)" in page
    assert CliRunner().invoke(typer_app, ["export", "model.onnx"]).exit_code == 0
    session = onnxruntime.InferenceSession("model.onnx")
    found, _ = session.run(["probabilities", "familiarity"], {"images": pixels.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4)

    files = [Path(f"photos/{row}.png") for row in range(len(photos))]
    files[0].parent.mkdir()
    for photo, file in zip(photos, files, strict=True):
        Image.fromarray(photo).save(file)
    served = mlflow.pyfunc.load_model(f"models:/{project.name}@champion")
    answers = served.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))
    shown = [[answer["scores"][label] for label in metadata.labels] for answer in answers]
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    result = CliRunner().invoke(typer_app, ["predict", "photos", "-o", "found.csv"])
    assert result.exit_code == 0, result.output
    table = pd.read_csv("found.csv").sort_values("file")
    np.testing.assert_allclose(table[metadata.labels], expected, atol=1e-4)
