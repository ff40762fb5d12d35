"""The gate of the registry, with versions that MLflow really makes."""

import base64
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phototag import tracking
from phototag.dataset import Dataset
from phototag.images import prepare_photo
from phototag.metrics import sigmoid
from phototag.model import build_model
from phototag.params import ModelParams
from phototag.registry import register_model
from phototag.tracking import Store
from phototag.weights import Metadata, load_model, save_model

pytestmark = pytest.mark.slow
LABELS = ["blue", "green", "red"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    return tracking.connect()


@pytest.fixture
def files(tmp_path: Path, tiny_spec: ModelParams) -> tuple[Path, Path]:
    """A model file and its thresholds."""
    mean, std = [0.5] * 3, [0.25] * 3
    network = build_model(tiny_spec, len(LABELS), 16, mean, std)
    spec = tiny_spec.model_dump(mode="json")
    metadata = Metadata(LABELS, 16, mean, std, spec, "key", epoch=1, val_loss=0.5)
    save_model(tmp_path / "model.safetensors", network, metadata)
    (tmp_path / "thresholds.json").write_text(
        json.dumps({"temperature": 1.0, "thresholds": dict.fromkeys(LABELS, 0.5)})
    )
    return tmp_path / "model.safetensors", tmp_path / "thresholds.json"


def test_champion_moves_only_to_a_winner_on_the_same_photos(
    store: Store, files: tuple[Path, Path]
) -> None:
    run_id = tracking.create_run(store, "key", {}, {}, "")

    def register(digest: str, f1: float, fingerprint: str) -> tuple[int, bool]:
        tags = {"model_digest": digest, "test_fingerprint": fingerprint, "content_key": "key"}
        decision = register_model(store, run_id, *files, {"f1_micro": f1}, tags)
        return decision["version"], decision["champion"]

    def aliases() -> tuple[int, int]:
        client = store.client
        found = (
            client.get_model_version_by_alias("phototag", n) for n in ("champion", "challenger")
        )
        champion, challenger = (int(version.version) for version in found)
        return champion, challenger

    assert register("a", 0.5, "photos") == (1, True)
    assert register("b", 0.4, "photos") == (2, False)
    assert aliases() == (1, 2)
    assert register("c", 0.9, "other photos") == (3, False)
    assert register("d", 0.6, "photos") == (4, True)
    assert aliases() == (4, 4)
    # The same model again makes no new version.
    assert register("b", 0.4, "photos") == (2, False)
    assert aliases() == (4, 2)
    tags = store.client.get_model_version("phototag", "3").tags
    assert "other photos" in tags["decision"]


def test_registered_model_takes_photos(store: Store, files: tuple[Path, Path]) -> None:
    run_id = tracking.create_run(store, "key", {}, {}, "")
    tags = {"model_digest": "a", "test_fingerprint": "f"}
    register_model(store, run_id, *files, {"f1_micro": 0.5}, tags)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(
        buffer, "PNG"
    )
    rows = [base64.b64encode(buffer.getvalue()).decode(), "%%%", base64.b64encode(b"x").decode()]

    tagger = mlflow.pyfunc.load_model("models:/phototag@champion")
    good, no_base64, no_image = tagger.predict(pd.DataFrame({"image": rows}))

    network, _ = load_model(files[0])
    pixels = prepare_photo(buffer.getvalue(), 16).pixels
    assert pixels is not None
    dataset = Dataset(pixels[None], np.array([0]), np.zeros((1, 3), np.uint8), LABELS, [""], [""])
    from phototag.inference import pick_device, predict_logits

    expected = sigmoid(predict_logits(network, dataset, pick_device()))[0]
    assert good["error"] is None
    assert list(good["scores"]) == LABELS
    assert list(good["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert good["labels"] == [n for n, p in zip(LABELS, expected, strict=True) if p >= 0.5]
    assert no_base64["labels"] == []
    assert "not base64" in no_base64["error"]
    assert no_image["error"].startswith("not an image")
