"""Reference of a model: what is known about it from held-out photos, whose labels are known.

`phototag monitor` compares new photos with the reference. The stage `reference` writes it to a
file, and `register` adds the file to the model version.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.special import logit

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.dataset.dataset import Dataset, join_datasets
from phototag.dataset.targets import UNKNOWN
from phototag.metrics.bootstrap import bootstrap_weights, effective_groups
from phototag.monitoring.calibrators import fit_calibrators
from phototag.monitoring.estimates import score_counts
from phototag.monitoring.properties import measure_properties
from phototag.pages.escaping import escape_spreadsheet_cell

RESAMPLES = 200
QUANTILES = 501
MAX_IMAGES = 4096  # largest number of photos whose properties are measured
CHUNK = 256  # number of photos whose properties are measured at a time
EPSILON = 1e-8  # smallest probability, because predictions.csv has 8 digits


@dataclass(frozen=True)
class Reference:
    """Calibrators, scores and distributions of a model on held-out photos.

    Attributes:
        labels: Names of the labels, [num_labels].
        groups: Effective number of groups of the photos on which the model was evaluated.
        calibrators: Result of `fit_calibrators`, float64 [1 + resamples, num_labels, 2].
        scores: Scores of the model on the photos on which it was evaluated, float64
            [1 + resamples, 3, 2 + num_labels], as returned by `score_counts`.
        prevalence: Share of positives of each label, float64 [num_labels].
        positives: Number of positives of each label, int64 [num_labels].
        probabilities: Quantiles of the probabilities, float32 [QUANTILES, num_labels].
        familiarity: Quantiles of the familiarity, float32 [QUANTILES]; empty if it is unknown.
        properties: Quantiles of the image properties, float32 [QUANTILES, num_properties].
    """

    labels: list[str]
    groups: float
    calibrators: np.ndarray
    scores: np.ndarray
    prevalence: np.ndarray
    positives: np.ndarray
    probabilities: np.ndarray
    familiarity: np.ndarray
    properties: np.ndarray


ARRAYS = [field.name for field in fields(Reference)][2:]


def build_reference(
    predictions: pd.DataFrame, datasets: Mapping[str, Dataset], seed: int
) -> Reference:
    """Build the reference of a model.

    Args:
        predictions: Table of the held-out predictions, written by the stage `evaluate`.
        datasets: Dictionary from split name to photos.
        seed: Seed of the bootstrap resamples.

    Raises:
        InputError: The predictions are those of other photos.
    """
    splits = list(dict.fromkeys(predictions["split"]))
    photos = join_datasets([datasets[split] for split in splits])
    shape = len(photos), len(photos.labels)
    files = predictions["image"].to_numpy()[:: shape[1]]
    if len(predictions) != photos.targets.size or list(files) != [
        escape_spreadsheet_cell(file) for file in photos.files
    ]:
        raise InputError("predictions.csv is about other photos: run `dvc repro evaluate`")
    targets, probabilities, predicted = (
        predictions[name].to_numpy().reshape(shape)
        for name in ("target", "probability", "predicted")
    )
    targets = np.where(np.isnan(targets), UNKNOWN, targets).astype(np.int8)
    weights = bootstrap_weights(len(photos), RESAMPLES, seed, photos.groups)
    is_test = np.repeat([split == "test" for split in splits], [len(datasets[s]) for s in splits])
    rows = np.flatnonzero(is_test | ~is_test.any())
    positive, chosen = targets[rows] > 0, (predicted[rows] > 0) & (targets[rows] != UNKNOWN)
    counted = [part.astype(float) for part in (positive & chosen, chosen, positive)]
    groups = np.asarray(photos.groups or photos.files)
    rated = predictions["familiarity"].to_numpy() if "familiarity" in predictions else np.zeros(0)
    known = targets != UNKNOWN
    return Reference(
        photos.labels,
        effective_groups(groups[rows].tolist()),
        fit_calibrators(to_logits(probabilities), targets, weights),
        score_counts(*(weights[:, rows] @ part for part in counted)),
        (targets > 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1),
        (targets > 0).sum(axis=0),
        _quantiles(probabilities),
        _quantiles(rated[:: shape[1]]),
        _quantiles(_measure(photos)),
    )


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities, which are limited to `EPSILON`..1 - `EPSILON`."""
    return np.asarray(logit(np.clip(probabilities, EPSILON, 1 - EPSILON)))


def _measure(photos: Dataset) -> np.ndarray:
    chosen = np.linspace(0, len(photos) - 1, min(len(photos), MAX_IMAGES)).astype(int)
    parts = np.array_split(photos.rows[chosen], range(CHUNK, len(chosen), CHUNK))
    return np.concatenate([measure_properties(photos.images[part]) for part in parts])


def _quantiles(values: np.ndarray) -> np.ndarray:
    """Return quantiles of the first axis, without NaN values; empty if there are no values."""
    if not np.isfinite(values).any():
        return np.zeros((0, *values.shape[1:]), np.float32)
    levels = np.linspace(0, 1, QUANTILES)
    return np.asarray(np.nanquantile(values, levels, axis=0), np.float32)


def save_reference(path: Path, reference: Reference) -> None:
    """Write a reference to a file."""
    metadata = {name: json.dumps(getattr(reference, name)) for name in ("labels", "groups")}
    arrays = {name: np.ascontiguousarray(getattr(reference, name)) for name in ARRAYS}
    with replace_file(path) as temporary:
        save_file(arrays, temporary, metadata)


def load_reference(path: Path) -> Reference:
    """Read a reference.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata = {name: json.loads(text) for name, text in file.metadata().items()}
            return Reference(**metadata, **{name: file.get_tensor(name) for name in ARRAYS})
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path} is missing or damaged: run `dvc repro reference`, and `dvc repro register` to "
            "add it to the model version"
        ) from None
