"""Scores of a challenger and of the champion on the same photos, and the statistical test.

If many models challenge the champion, one that is not better may win by chance. To limit this risk,
the k-th challenge is tested at the one-sided level `ALPHA / (k * (k + 1))`. The sum of the levels
of all challenges is `ALPHA`. By Boole's inequality, the probability that any challenger wins
without being better is therefore at most `ALPHA`, for any number of challengers.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from PIL import Image
from torch import nn

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import is_known
from phototag.metrics.bootstrap import (
    bootstrap_weights,
    confidence_interval,
    effective_groups,
)
from phototag.metrics.classification import label_scores
from phototag.metrics.differences import list_differences
from phototag.metrics.losses import sigmoid
from phototag.network.features import read_features
from phototag.network.inference import pick_device, predict_logits
from phototag.network.runtime import accelerate
from phototag.network.weights import Metadata, read_metadata
from phototag.registry.cross_validated import CrossValidated
from phototag.registry.decision import COLUMNS
from phototag.registry.predictions import compute_scores
from phototag.serving.tagger import Tagger, example_images, load_tagger

METRICS = ("f1_micro", "f1_macro", "f1_samples", "mAP_macro", "loss")
DECIDING_METRIC = "f1_micro"
ALPHA = 0.025  # sum of the one-sided levels of all challenges of a champion
CHUNK = 1024  # number of photos that are shrunk at a time
MIN_PHOTOS = 5  # smallest number of photos on which two models are compared
ModelFiles = tuple[Path, Path]  # model file (safetensors), thresholds file


@dataclass(frozen=True)
class Contestant:
    """A model that is compared with another one.

    Attributes:
        files: Model file and thresholds file.
        cross_validated: Predictions for photos that the model was trained on, by models that were
            not trained on them. None if there are none.
    """

    files: ModelFiles
    cross_validated: CrossValidated | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model for the compared photos and labels.

    Attributes:
        logits: Logits divided by the model's temperature, float [num_photos, num_labels].
        predicted: Whether each label is predicted, bool [num_photos, num_labels].
    """

    logits: np.ndarray
    predicted: np.ndarray

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Predicted probabilities, 0..1 [num_photos, num_labels]."""
        return sigmoid(self.logits)


@dataclass(frozen=True)
class Comparison:
    """Comparison of a challenger with a champion.

    Attributes:
        photos: Compared photos, with the labels that both models have.
        challenger: Predictions of the challenger.
        champion: Predictions of the champion.
        scores: Table with one row per metric. `difference` is the challenger's value minus the
            champion's value, and `low` and `high` are the bounds that `bound_difference` returns.
            `challenger_low`, `challenger_high`, `champion_low` and `champion_high` are the bounds
            of 95% confidence intervals. `photos` is the number of photos. If some targets are
            unknown, `known` is the number of known targets.
        labels: Table with one row per label: number of `positives`, F1 of both models, and the
            `difference` with its 95% confidence interval from `low` to `high`.
    """

    photos: Dataset
    challenger: Predictions
    champion: Predictions
    scores: pd.DataFrame
    labels: pd.DataFrame


def compare_models(
    photos: Dataset,
    challenger: Contestant,
    champion: Contestant,
    resamples: int,
    seed: int,
    challenge: int = 1,
    features: Path | None = None,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Comparison:
    """Score two models on the same photos and labels, each model at its own thresholds.

    The interval of each difference comes from a paired bootstrap: every resample draws the same
    groups of photos for both models, so the difficulty of the photos cancels out. Labels that only
    one model has, and photos without any known label, are ignored. `challenge` is the number of
    this challenge of the champion, starting from 1. `features` is the file with cached features of
    the photos. They are used for each model that has the same frozen backbones. `renamed` maps old
    names of labels to present names.

    Raises:
        InputError: A model cannot be read or was trained on larger photos, no label is
            common to both models, or too few photos have a known label.
    """
    if stored := champion.cross_validated:
        stored = replace(stored, labels=rename_labels(stored.labels, renamed))
        champion = replace(champion, cross_validated=stored)
    models = challenger, champion
    taggers = [load_tagger(*model.files) for model in models]
    taggers[1] = replace(taggers[1], labels=rename_labels(taggers[1].labels, renamed))
    photos = _take_labels(photos, [tagger.labels for tagger in taggers])
    if len(photos) < MIN_PHOTOS:
        raise InputError(f"the number of photos to compare on is {len(photos)}, below {MIN_PHOTOS}")
    weights = bootstrap_weights(len(photos), resamples, seed, photos.groups)
    groups = effective_groups(photos.groups or photos.files)
    new, old = (
        _predict(tagger, model, photos, features)
        for tagger, model in zip(taggers, models, strict=True)
    )
    new_scores, old_scores = (
        compute_scores(photos.targets, each.predicted, each.probabilities, each.logits, weights)
        for each in (new, old)
    )
    rows = list_differences(new_scores, old_scores, METRICS, groups, level(challenge))
    scores = pd.DataFrame(rows, columns=COLUMNS).assign(photos=len(photos))
    if not photos.complete:
        scores["known"] = np.count_nonzero(is_known(photos.targets))
    for name, values in (("challenger", new_scores), ("champion", old_scores)):
        bounds = [confidence_interval(values[metric]) for metric in METRICS]
        scores[[f"{name}_low", f"{name}_high"]] = np.array(bounds)
    new_f1, old_f1 = (label_scores(photos.targets, p.predicted, weights)[0] for p in (new, old))
    low, high = confidence_interval(new_f1 - old_f1)
    labels = {
        "label": photos.labels,
        "positives": (photos.targets > 0).sum(axis=0),
        "challenger": new_f1[0],
        "champion": old_f1[0],
        "difference": new_f1[0] - old_f1[0],
        "low": low,
        "high": high,
    }
    return Comparison(photos, new, old, scores, pd.DataFrame(labels))


def rename_labels(labels: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Return the present names of labels; the old names if two labels would get the same name."""
    names = [renamed.get(label, label) for label in labels]
    return names if len({*names}) == len(names) else list(labels)


def _take_labels(photos: Dataset, known: Sequence[Sequence[str]]) -> Dataset:
    """Return the photos with the labels that all models know, if any of them is known."""
    columns = [i for i, label in enumerate(photos.labels) if all(label in own for own in known)]
    if not columns:
        raise InputError("no label is common to both models and to the dataset")
    labels = [photos.labels[column] for column in columns]
    photos = replace(photos, targets=photos.targets[:, columns], labels=labels)
    return take_photos(photos, np.flatnonzero(is_known(photos.targets).any(axis=1)))


def _predict(
    tagger: Tagger, model: Contestant, photos: Dataset, features: Path | None
) -> Predictions:
    """Return the predictions for the labels of `photos`: the cross-validated ones, if there are."""
    found = Predictions(np.zeros(photos.targets.shape), np.zeros(photos.targets.shape, bool))
    rows, stored = np.full(len(photos), -1), model.cross_validated
    if stored is not None:
        rows = stored.find_rows(photos)
        own, columns = rows >= 0, [stored.labels.index(label) for label in photos.labels]
        found.logits[own] = stored.logits[rows[own]][:, columns]
        found.predicted[own] = stored.predicted[rows[own]][:, columns]
    if len(others := np.flatnonzero(rows < 0)):
        metadata = read_metadata(model.files[0])
        logits = _compute_logits(tagger, metadata, take_photos(photos, others), features)
        columns = [tagger.labels.index(label) for label in photos.labels]
        found.logits[others] = logits[:, columns] / tagger.temperature
        found.predicted[others] = sigmoid(found.logits[others]) >= tagger.thresholds[columns]
    return found


def _compute_logits(
    tagger: Tagger, metadata: Metadata, photos: Dataset, features: Path | None
) -> np.ndarray:
    """Return the network's logits of the photos, float [num_photos, num_labels of the tagger]."""
    side = photos.images.shape[1]
    if tagger.size > side:
        raise InputError(
            f"it was trained on photos of {tagger.size} pixels a side, but the photos to compare "
            f"on have only {side} pixels"
        )
    # `predict_logits` takes the number of the network's outputs from the targets.
    targets = np.zeros((len(photos), len(tagger.labels)), np.int8)
    inputs, network = replace(photos, targets=targets), tagger.network.to(pick_device())
    # The cached features belong to photos of this side.
    cacheable = metadata.spec.frozen and tagger.size == side
    if features and cacheable and isinstance(network, nn.Sequential):
        with suppress(InputError):  # they are features of other backbones
            cached = read_features(features, network[:2], photos.images)
            return predict_logits(network[2:], replace(inputs, images=cached), pick_device())
    if metadata.spec.backbones:
        network = accelerate(network, example_images(tagger).to(pick_device()))
    parts = np.array_split(np.arange(len(photos)), range(CHUNK, len(photos), CHUNK))
    chunks = (take_photos(inputs, part) for part in parts)
    return np.concatenate(
        [predict_logits(network, _shrink(chunk, tagger.size), pick_device()) for chunk in chunks]
    )


def _shrink(photos: Dataset, size: int) -> Dataset:
    """Return the photos with `size` pixels a side."""
    if size == photos.images.shape[1]:
        return photos
    packed = (Image.fromarray(photos.images[row]) for row in photos.rows)
    small = [np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC)) for photo in packed]
    return replace(photos, images=np.stack(small), rows=np.arange(len(photos)))


def level(challenge: int) -> float:
    """Return the one-sided level of the k-th challenge. The sum over all k is `ALPHA`."""
    return ALPHA / (challenge * (challenge + 1))


def coverage(challenge: int) -> str:
    """Return the coverage of the confidence interval in the k-th challenge, such as `97.5%`."""
    return f"{100 * (1 - 2 * level(challenge)):.6g}%"


def judge(scores: pd.DataFrame, challenge: int = 1) -> tuple[bool, str]:
    """Return whether the challenger wins, and the reason for this decision.

    The challenger wins if the lower bound for the difference in micro F1 is above 0. `scores` is
    the table in a `Comparison`.
    """
    row = scores.set_index("metric").loc[DECIDING_METRIC].to_dict()
    wins = bool(row["low"] > 0)
    verb = "beats" if wins else "does not clearly beat"
    f1 = f"micro F1 {row['challenger']:.4f} {verb} {row['champion']:.4f}"
    if np.isnan(row["low"]):
        return wins, f"{f1}: the photos are in too few groups for an interval"
    interval = f"{coverage(challenge)} interval {row['low']:+z.4f} to {row['high']:+z.4f}"
    return wins, f"{f1}: difference {row['difference']:+z.4f}, {interval}"
