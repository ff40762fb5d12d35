"""Predictions by nested cross-validation for the photos that a version was trained on.

A version of a linear probe that was evaluated by cross-validation contains these predictions as the
file `artifacts/cross_validation.npz`. With them, it can be compared with other models on the photos
that it was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset
from phototag.registry.photos import list_photo_ids
from phototag.registry.predictions import restore_logits


@dataclass(frozen=True)
class CrossValidated:
    """Predictions of linear probes that were fitted without the photo.

    Attributes:
        ids: Id of each photo, as returned by `list_photo_ids`, [num_photos].
        labels: Names of the labels, [num_labels].
        logits: Logits divided by the temperature, float [num_photos, num_labels].
        predicted: Whether each label is predicted, bool [num_photos, num_labels].
    """

    ids: Sequence[str]
    labels: Sequence[str]
    logits: np.ndarray
    predicted: np.ndarray

    def find_rows(self, photos: Dataset) -> np.ndarray:
        """Return the row of each photo, int64 [num_photos]; -1 for photos without predictions."""
        rows = {name: row for row, name in enumerate(self.ids)}
        return np.array([rows.get(name, -1) for name in list_photo_ids(photos)], np.int64)

    def save(self, path: Path) -> None:
        """Write the predictions to a file."""
        np.savez_compressed(path, **vars(self))


def load_predictions(path: Path) -> CrossValidated | None:
    """Read the predictions that `CrossValidated.save` wrote, or return None without a file."""
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return CrossValidated(
            arrays["ids"].tolist(), arrays["labels"].tolist(), arrays["logits"], arrays["predicted"]
        )


def read_evaluation(predictions: Path, photos: Dataset) -> CrossValidated:
    """Read the predictions of an evaluation from predictions.csv, which has one row per entry."""
    names = ["probability", "predicted"]
    table = pd.read_csv(predictions, usecols=names)
    shape = photos.targets.shape
    probabilities, predicted = (table[name].to_numpy().reshape(shape) for name in names)
    logits = restore_logits(probabilities).astype(np.float32)
    return CrossValidated(list_photo_ids(photos), photos.labels, logits, predicted > 0)
