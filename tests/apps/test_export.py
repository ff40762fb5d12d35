import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from phototag.apps.export import export_onnx
from phototag.base.params import Params
from phototag.cli import typer_app
from phototag.network.metrics import sigmoid
from phototag.network.model import build_model
from phototag.serving.tagger import Tagger

pytestmark = pytest.mark.slow


def test_onnx_gives_the_same_probabilities_for_any_batch(
    shipped_params: Params, tmp_path: Path
) -> None:
    """The report's own network, as shipped."""
    torch.manual_seed(0)
    labels = [f"label{index}" for index in range(14)]
    network = build_model(shipped_params.model, 14, 128, [0.4] * 3, [0.2] * 3).eval()
    tagger = Tagger(network, labels, 128, 0.05, np.linspace(0.1, 0.9, 14))
    export_onnx(tagger, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 2, 7, 33):
        images = torch.randint(0, 256, (batch, 3, 128, 128), dtype=torch.uint8)
        with torch.inference_mode():
            expected = sigmoid(network(images).numpy() / 0.05)
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.ptp(expected) > 0.05  # they differ, so that the comparison says something
    thresholds = session.get_modelmeta().custom_metadata_map["thresholds"]
    assert list(json.loads(thresholds)) == labels


def test_command_writes_a_new_file_only(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    shown = CliRunner().invoke(typer_app, ["export", str(tmp_path / "model.onnx")])
    assert "exists already" in str(shown.exception)
    assert (tmp_path / "model.onnx").read_text() == "mine"
