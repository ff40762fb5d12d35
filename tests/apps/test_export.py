import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from phototag.apps.export import export_onnx
from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.metrics.losses import sigmoid
from phototag.network.familiarity import add_distance, fit_familiarity, split_network
from phototag.network.model import build_model
from phototag.schema.params import Params
from phototag.serving.tagger import Tagger, accelerate_tagger

pytestmark = pytest.mark.slow


def test_onnx_runtime_gives_the_same_probabilities_for_any_batch_size(
    shipped_params: Params, tmp_path: Path
) -> None:
    """Exports the report's network."""
    torch.manual_seed(0)
    labels = [f"label{index}" for index in range(14)]
    network = build_model(shipped_params.model, 14, 128, [0.4] * 3, [0.2] * 3).eval()
    layers, _ = split_network(network, shipped_params.model)
    with torch.inference_mode():
        features = layers(torch.randint(0, 256, (60, 3, 128, 128), dtype=torch.uint8)).numpy()
    names = list(map(str, range(60)))
    familiarity = fit_familiarity(features, names, features, names)
    assert familiarity is not None
    joined = add_distance(network, shipped_params.model, familiarity)
    thresholds = np.linspace(0.1, 0.9, 14)
    tagger = Tagger(joined, labels, 128, 0.05, thresholds, familiarity=familiarity)
    export_onnx(tagger, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 2, 7, 33):
        images = torch.randint(0, 256, (batch, 3, 128, 128), dtype=torch.uint8)
        with torch.inference_mode():
            expected = sigmoid(network(images).numpy() / 0.05)
            rated = familiarity.rate(familiarity(layers(images)))
        found, shares = session.run(["probabilities", "familiarity"], {"images": images.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-4)
        # Distances of noise hardly differ, so that small errors change the rank.
        np.testing.assert_allclose(shares / 100, rated / 100, atol=2e-3)
        assert np.ptp(expected) > 0.05  # a constant output would make the comparison useless
    properties = session.get_modelmeta().custom_metadata_map
    assert list(json.loads(properties["thresholds"])) == labels


class Odd(nn.Module):
    """A network whose adaptive pooling from 16 to 7 positions ONNX cannot express."""

    def forward(self, images: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(images.float(), 7)
        return pooled.flatten(1)[:, :3]


def test_network_that_onnx_cannot_express_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tagger = Tagger(Odd().eval(), ["a", "b", "c"], 16, 1.0, np.full(3, 0.5))
    with pytest.raises(InputError, match="cannot be exported to ONNX") as raised:
        export_onnx(tagger, tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    # Predictions then fall back to PyTorch.
    accelerate_tagger(tagger)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "note: PyTorch is used instead of ONNX Runtime" in printed.err
    assert not list(tmp_path.iterdir())


def test_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    shown = CliRunner().invoke(typer_app, ["export", str(tmp_path / "model.onnx")])
    assert "already exists" in str(shown.exception)
    assert (tmp_path / "model.onnx").read_text() == "mine"
