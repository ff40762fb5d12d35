"""Model files for tests, built without training: each label is a bright colour channel."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from phototag.base.files import write_json
from phototag.network.familiarity import fit_familiarity, split_network
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from phototag.network.weights import Metadata, save_model

if TYPE_CHECKING:
    from phototag.tracking.store import Store

LABELS = ["blue", "green", "red"]


def make_model(
    folder: Path,
    known: int = 3,
    size: int = 16,
    source: str = "",
    labels: Sequence[str] = LABELS,
    photos: np.ndarray | None = None,
) -> tuple[Path, Path]:
    """Write a model that predicts the first `known` labels, and its thresholds.

    `labels` are the names of the three channels. If `photos` (uint8 [num_photos, size, size, 3])
    are passed, the model has a familiarity that compares photos with them.
    """
    spec = ModelParams.model_validate(
        {"init": "he", "conv": [{"out": 3, "kernel": 1, "pool": size}], "linear": []}
    )
    network = build_model(spec, len(LABELS), size, [0.0] * 3, [1.0] * 3)
    knows = torch.arange(3) < known
    last = len(network) - 1
    network.load_state_dict(
        network.state_dict()
        | {
            "1.weight": torch.eye(3)[:, :, None, None],
            "1.bias": torch.zeros(3),
            f"{last}.weight": torch.diag(40.0 * knows),
            f"{last}.bias": torch.where(knows, -25.0, -3.0),
        }
    )
    return _write(folder, network, spec, size, source, labels, photos)


def make_backbone(
    folder: Path, size: int = 64, photos: np.ndarray | None = None
) -> tuple[Path, Path]:
    """Write a model with a frozen, randomly initialised backbone, and its thresholds."""
    torch.manual_seed(0)
    spec = ModelParams.model_validate(
        {
            "name": "squeezenet1_1",
            "weights": "DEFAULT",
            "freeze": True,
            "init": "he",
            "conv": [{"out": 1, "kernel": 1}],
            "linear": [],
        }
    )
    network = build_model(spec, len(LABELS), size, [0.5] * 3, [0.5] * 3)
    return _write(folder, network, spec, size, "", LABELS, photos)


def _write(
    folder: Path,
    network: nn.Sequential,
    spec: ModelParams,
    size: int,
    source: str,
    labels: Sequence[str],
    photos: np.ndarray | None,
) -> tuple[Path, Path]:
    familiarity = None
    if photos is not None:
        layers, names = split_network(network.eval(), spec)[0], list(map(str, range(len(photos))))
        with torch.inference_mode():
            features = layers(torch.from_numpy(photos).permute(0, 3, 1, 2)).numpy()
        familiarity = fit_familiarity(features, names, features, names)
    folder.mkdir(exist_ok=True)
    metadata = Metadata(
        list(labels),
        size,
        [0.0] * 3,
        [1.0] * 3,
        spec.model_dump(mode="json"),
        "key",
        epoch=1,
        val_loss=0.5,
        num_photos=40 if source else 0,
        source=source,
    )
    save_model(folder / "model.safetensors", network, metadata, familiarity)
    point = {"content_key": "key", "temperature": 1.0, "thresholds": dict.fromkeys(labels, 0.5)}
    write_json(folder / "thresholds.json", point)
    return folder / "model.safetensors", folder / "thresholds.json"


def register(store: "Store", *models: tuple[Path, Path]) -> None:
    """Register models as versions 1, 2, ...; make the first one the champion."""
    from phototag.registry import versions
    from phototag.registry.comparison import Contestant
    from phototag.tracking.runs import Training, create_run

    run_id = create_run(store, Training("key"))
    for number, files in enumerate(models):
        tags = {"model_digest": str(number), "test_fingerprint": "f"}
        versions.register_model(store, run_id, Contestant(files), ["0" * 16], tags, "")
    versions.promote(store, "1", "")
