"""Predictions by models that were not trained on the photo, and the choice of thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from phototag.dataset.dataset import Dataset, join_datasets, take_photos
from phototag.dataset.folds import assign_folds
from phototag.evaluation.calibration import fit_temperature
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.thresholds import Thresholds, choose_thresholds
from phototag.metrics.losses import sigmoid

OUT_OF_FOLD = "train and val, out of fold"  # photos on which a linear probe is chosen


@dataclass(frozen=True)
class Predictions:
    """Predictions for photos, each by a model that was not trained on the photo.

    Attributes:
        photos: Photos with their targets.
        raw: Logits of the network, float [num_photos, num_labels].
        scaled: Logits divided by the temperature, of the same shape.
        logits: `scaled` if `evaluate.calibrate` is true, otherwise `raw`.
        predicted: Whether each label is predicted, bool, of the same shape.
        at_best_f1: The same at the thresholds with the highest F1, whatever `evaluate.target` is.
    """

    photos: Dataset
    raw: np.ndarray
    scaled: np.ndarray
    logits: np.ndarray
    predicted: np.ndarray
    at_best_f1: np.ndarray

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Predicted probabilities, 0..1 [num_photos, num_labels]."""
        return sigmoid(self.logits)


@dataclass(frozen=True)
class OperatingPoint:
    """Values with which the logits of a model are converted to predictions.

    Attributes:
        temperature: Temperature that minimizes the loss.
        divisor: Divisor of the logits: `temperature` if `evaluate.calibrate` is true, otherwise 1.
        thresholds: Decision thresholds of the labels.
    """

    temperature: float
    divisor: float
    thresholds: Thresholds

    def predict(self, photos: Dataset, raw: np.ndarray) -> Predictions:
        """Convert the logits of photos to predictions."""
        logits = raw / self.divisor
        cuts = self.thresholds.values, self.thresholds.best_f1
        predicted = (sigmoid(logits) >= values for values in cuts)
        return Predictions(photos, raw, raw / self.temperature, logits, *predicted)


def choose_point(
    photos: Dataset, logits: np.ndarray, chosen_on: str, params: EvaluateParams, seed: int
) -> OperatingPoint:
    """Choose the temperature and the thresholds on photos that the model was not trained on.

    The arguments are those of `choose_thresholds`.
    """
    temperature = fit_temperature(photos.targets, logits)
    divisor = temperature if params.calibrate else 1.0
    thresholds = choose_thresholds(photos, logits / divisor, chosen_on, params, seed)
    return OperatingPoint(temperature, divisor, thresholds)


def cross_validate(
    photos: Dataset, out_of_fold: np.ndarray, params: EvaluateParams, seed: int
) -> Predictions:
    """Predict each photo without using the photos of its fold (nested cross-validation).

    Row k of `out_of_fold` has the logits of the photos in fold k, computed by a probe that was
    fitted on the other folds, and the logits of the other photos, computed by cross-validation
    within the other folds. The temperature and the thresholds for fold k are chosen on the latter.

    Args:
        photos: Photos of all folds.
        out_of_fold: Logits, float [1 + `FOLDS`, num_photos, num_labels]. Row 0 is not used.
        params: Params in the group `evaluate`.
        seed: Seed of the folds, and of the bootstrap resamples with which thresholds are chosen.
    """
    folds = assign_folds(photos, seed)
    found, positions = [], []
    for fold in np.unique(folds):
        own, others = (np.flatnonzero(where) for where in (folds == fold, folds != fold))
        logits, rest = out_of_fold[fold], take_photos(photos, others)
        point = choose_point(rest, logits[others], OUT_OF_FOLD, params, seed)
        found.append(point.predict(take_photos(photos, own), logits[own]))
        positions.append(own)
    return join_predictions(found, np.argsort(np.concatenate(positions)))


def join_predictions(parts: Sequence[Predictions], order: np.ndarray | None = None) -> Predictions:
    """Concatenate predictions, and sort their photos in the given order of positions."""
    photos = join_datasets([part.photos for part in parts])
    order = np.arange(len(photos)) if order is None else order
    arrays = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("raw", "scaled", "logits", "predicted", "at_best_f1")
    )
    return Predictions(take_photos(photos, order), *arrays)
