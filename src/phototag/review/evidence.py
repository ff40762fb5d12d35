"""What is known of a project's photos: labels, what the model says, which look alike."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.dataset.manifest import read_kept
from phototag.metrics.losses import sigmoid
from phototag.network.features import read_features
from phototag.network.inference import pick_device, predict_logits
from phototag.network.model import find_head
from phototag.network.weights import load_model

IMAGES, MANIFEST, SPLITS = "data/images.npy", "data/manifest.csv", "data/splits.csv"
FEATURES, OUT_OF_FOLD = "data/features.npy", "models/out_of_fold.npy"
MODEL, THRESHOLDS = "models/model.safetensors", "reports/evaluate/thresholds.json"
READ = (IMAGES, MANIFEST, SPLITS, FEATURES, OUT_OF_FOLD, MODEL, THRESHOLDS)


@dataclass(frozen=True)
class Evidence:
    """All photos that were not rejected, in the order of images.npy.

    Attributes:
        photos: Pixels, targets, labels, files and hashes.
        duplicate_groups: Of each photo, [num_photos]; empty for one without a duplicate.
        splits: Each photo's split, [num_photos].
        probabilities: 0..1, [num_photos, num_labels].
        unseen: Whether they come from a network that was not trained on the photo, [num_photos].
        features: What the output layer looks at, of unit length, float32 [num_photos, width].
        thresholds: From which a label counts as predicted, [num_labels].
        network: From pixels to logits.
    """

    photos: Dataset
    duplicate_groups: list[str]
    splits: np.ndarray
    probabilities: np.ndarray
    unseen: np.ndarray
    features: np.ndarray
    thresholds: np.ndarray
    network: nn.Module

    @cached_property
    def rows(self) -> dict[str, int]:
        """The first photo of each content hash."""
        return {sha256: row for row, sha256 in reversed([*enumerate(self.photos.sha256)])}

    def find_neighbours(self, photo: int, count: int) -> list[int]:
        """Find the photos that look most like one, the nearest first."""
        nearness = self.features @ self.features[photo]
        nearness[photo] = -np.inf
        return [int(row) for row in np.argsort(-nearness, kind="stable")[:count]]

    def find_copies(self, photo: int) -> list[int]:
        """Find the other photos of a group of duplicates."""
        group = self.duplicate_groups[photo]
        return [
            row for row, name in enumerate(self.duplicate_groups) if name == group and row != photo
        ]


def read_evidence(root: Path) -> Evidence:
    """Read what the last `dvc repro` of a project gave.

    Raises:
        InputError: Something is missing, or does not belong together.
    """
    missing = [name for name in READ if not (root / name).is_file()]
    if missing:
        raise InputError(f"{missing[0]} is missing: `dvc repro` makes it")
    parts = read_datasets(root / IMAGES, root / MANIFEST, root / SPLITS)
    network, metadata = load_model(root / MODEL)
    point = read_json(root / THRESHOLDS)
    train, joined = parts["train"], join_datasets(list(parts.values()))
    photos = take_photos(joined, np.argsort(joined.rows))
    if not photos.labels == metadata.labels == [*point["thresholds"]]:
        raise InputError(f"{MANIFEST} and {MODEL} know other labels: run `dvc repro`")
    splits = np.empty(len(photos), "<U5")
    for split, part in parts.items():
        splits[part.rows] = split

    network.to(pick_device())
    judge, seen = network, photos
    if metadata.is_frozen:
        kept = read_features(root / FEATURES, network[:2], photos.images)
        judge, seen = network[2:], replace(photos, images=kept)
    logits, features = _look(judge, seen)
    out_of_fold = np.load(root / OUT_OF_FOLD)
    if len(out_of_fold) == len(train):
        logits[train.rows] = out_of_fold
    unseen = (splits != "train") | (len(out_of_fold) == len(train))
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return Evidence(
        photos,
        list(read_kept(root / MANIFEST)["duplicate_group"]),
        splits,
        sigmoid(logits / point["temperature"]),
        unseen,
        features / np.maximum(length, np.finfo(np.float32).tiny),
        np.array([*point["thresholds"].values()]),
        network,
    )


def _look(judge: nn.Module, photos: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits, and what the output layer makes them of."""
    given: list[np.ndarray] = []
    hook = find_head(judge).register_forward_pre_hook(
        lambda _, inputs: given.append(inputs[0].float().cpu().numpy())
    )
    logits = predict_logits(judge, photos, pick_device())
    hook.remove()
    return logits, np.concatenate(given)
