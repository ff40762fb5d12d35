"""Data that the review page shows for each photo: labels, scores and similar photos."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.preprocessing import normalize
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
SUMMARY = "reports/resize/summary.json"
INPUTS = (IMAGES, MANIFEST, SPLITS, FEATURES, OUT_OF_FOLD, MODEL, THRESHOLDS, SUMMARY)


@dataclass(frozen=True)
class Evidence:
    """The data of all photos that were not rejected, in the order of images.npy.

    Attributes:
        photos: Pixels, targets, labels, file names and SHA-256 hashes.
        duplicate_groups: Name of each photo's duplicate group; "" for photos without duplicates.
        probabilities: Predicted probabilities in 0..1, [num_photos, num_labels].
        unseen: True for photos that were not used to train the scoring network, bool [num_photos].
        features: L2-normalized inputs of the output layer, float32 [num_photos, num_features].
        thresholds: Decision threshold of each label, in 0..1, [num_labels]; above 1 for a label
            that abstains, which is never predicted.
        network: Network that maps pixels to logits.
        renamed: Old name of a label -> label of `photos`; without labels that were merged.
    """

    photos: Dataset
    duplicate_groups: list[str]
    probabilities: np.ndarray
    unseen: np.ndarray
    features: np.ndarray
    thresholds: np.ndarray
    network: nn.Module
    renamed: Mapping[str, str]

    def find_similar(self, photo: int, count: int) -> list[int]:
        """Return the photos whose features have the highest cosine similarity, highest first."""
        similarity = self.features @ self.features[photo]
        similarity[photo] = -np.inf
        return [int(row) for row in np.argsort(-similarity, kind="stable")[:count]]


def read_evidence(root: Path) -> Evidence:
    """Read the results of the last `dvc repro`.

    Raises:
        InputError: A file is missing, or the model and the manifest have different labels.
    """
    for name in INPUTS:
        if not (root / name).is_file():
            raise InputError(f"{name} is missing: run `dvc repro`")
    parts = read_datasets(root / IMAGES, root / MANIFEST, root / SPLITS)
    network, metadata = load_model(root / MODEL)
    point = read_json(root / THRESHOLDS)
    train, joined = parts["train"], join_datasets(list(parts.values()))
    labelled = np.concatenate([train.rows, parts["val"].rows])
    photos = take_photos(joined, np.argsort(joined.rows))
    if point.get("content_key", metadata.content_key) != metadata.content_key:
        raise InputError(f"{THRESHOLDS} is of another model than {MODEL}: run `dvc repro`")
    if not photos.labels == metadata.labels == [*point["thresholds"]]:
        raise InputError(f"{MODEL} and {MANIFEST} have different labels: run `dvc repro`")

    network.to(pick_device())
    module, inputs = network, photos
    if metadata.spec.frozen:  # the embed stage cached the features
        cached = read_features(root / FEATURES, network[:2], photos.images)
        module, inputs = network[2:], replace(photos, images=cached)
    logits, features = _predict(module, inputs)
    out_of_fold, unseen = np.load(root / OUT_OF_FOLD), np.ones(len(photos), bool)
    if len(out_of_fold):
        logits[labelled] = out_of_fold[0]
    else:
        unseen[train.rows] = False
    return Evidence(
        photos,
        list(read_kept(root / MANIFEST)["duplicate_group"]),
        sigmoid(logits / point["temperature"]),
        unseen,
        normalize(features),
        np.array([*point["thresholds"].values()]),
        network,
        read_json(root / SUMMARY).get("renamed_labels", {}),
    )


def _predict(module: nn.Module, photos: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of the photos, and the features (inputs of the output layer)."""
    inputs: list[np.ndarray] = []
    hook = find_head(module).register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0].float().cpu().numpy())
    )
    logits = predict_logits(module, photos, pick_device())
    hook.remove()
    return logits, np.concatenate(inputs)
