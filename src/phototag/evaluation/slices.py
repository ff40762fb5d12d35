"""Scores on slices: subsets of photos that share a property, such as dark photos."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import all_known, is_known
from phototag.metrics.bootstrap import confidence_interval
from phototag.metrics.classification import micro_scores
from phototag.metrics.losses import binary_cross_entropy

LUMA = np.array([0.299, 0.587, 0.114])  # weights of ITU-R BT.601, as in Pillow's mode L
MAX_GRAY = 2.0  # mean difference between channels, 0..255, up to which a photo counts as gray
COLUMNS = [
    "slice",
    "group",
    "photos",
    "known",
    "loss",
    "f1_micro",
    "f1_micro_low",
    "f1_micro_high",
    "precision_micro",
    "recall_micro",
    "errors_per_photo",
]
# Groups are listed in this order, and others alphabetically after them.
ORDER = ("dark", "small", "none", "1", "2", "3", "medium", "bright", "large")


def slice_photos(dataset: Dataset, manifest: pd.DataFrame) -> dict[str, np.ndarray]:
    """Divide photos into groups by brightness, number of labels, colour, orientation and size.

    Args:
        dataset: Photos to assign.
        manifest: Manifest rows of these photos, in the same order.

    Returns:
        Property -> group of each photo, strings [num_photos]. The properties are brightness and
        short side of the source file (both in terciles), number of labels, colour, and orientation
        of the source file. A property that all photos share is left out.
    """
    brightness, colourfulness = _measure_pixels(dataset)
    width, height = manifest["width"].to_numpy(), manifest["height"].to_numpy()
    num_labels = np.minimum((dataset.targets > 0).sum(axis=1), 4)
    num_labels[~is_known(dataset.targets).all(axis=1)] = 5
    names = np.array(["none", "1", "2", "3", "4 or more", "some unknown"])
    slices = {
        "brightness": _terciles(brightness, ("dark", "medium", "bright")),
        "number of labels": names[num_labels],
        "colour": np.where(colourfulness > MAX_GRAY, "colour", "gray"),
        "orientation": np.select([width > height, width < height], ["wide", "tall"], "square"),
        "short side": _terciles(np.minimum(width, height), ("small", "medium", "large")),
    }
    return {name: groups for name, groups in slices.items() if len(set(groups)) > 1}


def tabulate_slices(
    slices: dict[str, np.ndarray],
    targets: np.ndarray,
    logits: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
) -> pd.DataFrame:
    """Compute the scores of each group of photos.

    Args:
        slices: Groups returned by `slice_photos`.
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        logits: Logits, float, of the same shape.
        predicted: Predictions (0 or 1), of the same shape.
        weights: Weights returned by `bootstrap_weights`, float [1 + resamples, num_photos].

    Returns:
        One row per group that has known entries. Columns: `slice`, `group`, `photos`, `known`
        (number of known entries; omitted if all are known), `loss`, `f1_micro`, `f1_micro_low` and
        `f1_micro_high` (95% confidence interval; NaN for a single photo or album),
        `precision_micro`, `recall_micro` and `errors_per_photo` (wrong entries).
    """
    rows = []
    known = is_known(targets)
    errors = ((targets != predicted) & known).sum(axis=1)
    for name, group, chosen in _iterate_groups(slices):
        if not known[chosen].any():
            continue
        drawn = weights[:, chosen]
        drawn = drawn[drawn.any(axis=1)]  # resamples without these photos have no score
        found = micro_scores(targets[chosen], predicted[chosen], drawn)
        single = (drawn == drawn[:, :1]).all()  # one photo or one album: nothing to resample
        low, high = confidence_interval(found["f1_micro"][:1] if single else found["f1_micro"])
        rows.append(
            {
                "slice": name,
                "group": group,
                "photos": int(chosen.sum()),
                "known": int(known[chosen].sum()),
                "loss": binary_cross_entropy(targets[chosen], logits[chosen]),
                "f1_micro": found["f1_micro"][0],
                "f1_micro_low": low,
                "f1_micro_high": high,
                "precision_micro": found["precision_micro"][0],
                "recall_micro": found["recall_micro"][0],
                "errors_per_photo": errors[chosen].mean(),
            }
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.drop(columns="known") if all_known(targets) else table


def _iterate_groups(slices: dict[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield property, group, and which photos are in the group."""
    for name, groups in slices.items():
        ordered = [group for group in ORDER if group in groups]
        for group in [*ordered, *sorted(set(groups) - set(ORDER))]:
            yield name, group, groups == group


def _measure_pixels(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return each photo's mean luma and mean difference between channels, 0..255."""
    measured = []
    for row in dataset.rows:
        # Every fourth pixel in both directions is accurate enough.
        pixels = dataset.images[row, ::4, ::4].astype(np.float64)
        measured.append(((pixels @ LUMA).mean(), np.ptp(pixels, axis=2).mean()))
    brightness, colourfulness = np.array(measured).reshape(-1, 2).T
    return brightness, colourfulness


def _terciles(values: np.ndarray, names: tuple[str, str, str]) -> np.ndarray:
    if not len(values):
        return np.empty(0, "<U8")
    edges = np.quantile(values, [1 / 3, 2 / 3])
    return np.array(names)[np.searchsorted(edges, values, side="left")]
