"""What the sample's model must do, whatever its scores: trained here on the shipped params."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from phototag.base.files import read_json
from phototag.dataset.dataset import Dataset, read_batch, read_datasets
from phototag.metrics.losses import sigmoid
from phototag.network.inference import predict_logits
from phototag.network.weights import load_model
from phototag.synthetic.dataset import LABELS
from phototag.synthetic.scene import draw_scene

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
pytestmark = [pytest.mark.slow, pytest.mark.soak]


class Trained:
    """The model of a whole pipeline, its thresholds, and the photos it has not been trained on."""

    def __init__(self, folder: Path) -> None:
        data = (folder / f"data/{name}" for name in ("images.npy", "manifest.csv", "splits.csv"))
        self.network, metadata = load_model(folder / "models/model.safetensors")
        assert metadata.labels == list(LABELS)
        point = read_json(folder / "reports/evaluate/thresholds.json")
        self.thresholds = np.array(list(point["thresholds"].values()))
        self.test: Dataset = read_datasets(*data)["test"]
        self.images, _ = read_batch(self.test, np.arange(len(self.test)), CPU)

    def predict(self, images: Tensor) -> np.ndarray:
        """Return probabilities, [num_photos, num_labels]."""
        array = images.permute(0, 2, 3, 1).numpy()
        number = len(array)
        targets = np.zeros((number, len(LABELS)), np.uint8)
        names = [""] * number
        drawn = Dataset(array, np.arange(number), targets, list(LABELS), names, names)
        return sigmoid(predict_logits(self.network, drawn, CPU))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment["PYTHONPATH"] = str(ROOT)
    for stage in ("sample", "resize", "split", "normalize_stats", "train", "evaluate"):
        subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=True
        )
    return Trained(folder)


def test_a_mirrored_photo_has_the_same_labels(trained: Trained) -> None:
    straight, mirrored = trained.predict(trained.images), trained.predict(trained.images.flip(3))
    agreed = (straight >= trained.thresholds) == (mirrored >= trained.thresholds)
    assert agreed.mean() > 0.95
    # Other photos' scores are several times as far off.
    moved = np.abs(straight - mirrored).mean()
    assert moved < np.abs(straight - np.roll(straight, 1, axis=0)).mean() / 2


def test_darkening_a_photo_raises_night(trained: Trained) -> None:
    night = LABELS.index("night")
    day = trained.images[trained.test.targets[:, night] == 0]
    before = trained.predict(day)[:, night]
    after = trained.predict((day * 0.4).to(torch.uint8))[:, night]
    assert (after > before).mean() > 0.8
    assert after.mean() > 3 * before.mean()


@pytest.mark.parametrize(
    ("drawn", "sure"),
    [
        ({"night"}, {"night"}),
        ({"female", "people", "portrait"}, {"people", "portrait"}),
        ({"male", "people", "portrait"}, {"people", "portrait"}),
    ],
)
def test_unmistakable_photos_are_right(trained: Trained, drawn: set[str], sure: set[str]) -> None:
    predicted = predict_scenes(trained, drawn)
    found = predicted[:, [label in sure for label in LABELS]].all(axis=1)
    assert found.mean() >= 0.8
    # Of what is not there, hardly anything is named.
    assert predicted[:, [label not in drawn for label in LABELS]].mean() < 0.06


def test_a_scene_with_nothing_in_it_gets_no_label(trained: Trained) -> None:
    assert (~predict_scenes(trained, set()).any(axis=1)).mean() >= 0.8


def predict_scenes(trained: Trained, labels: set[str]) -> np.ndarray:
    """Draw 20 photos that no split holds, and return the decisions on them."""
    scenes = [draw_scene(labels, np.random.default_rng(seed), 128) for seed in range(20)]
    pixels = np.stack([np.asarray(scene.convert("RGB")) for scene in scenes])
    return trained.predict(torch.from_numpy(pixels).permute(0, 3, 1, 2)) >= trained.thresholds
