"""Scores on slices: groups of photos that share a property, such as dark photos."""

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import all_known, is_known
from phototag.metrics.bootstrap import confidence_interval
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import binary_cross_entropy

LUMA = np.array([0.299, 0.587, 0.114])  # RGB weights of ITU-R BT.601, as in Pillow's mode L
MAX_GRAY = 2.0  # a photo is gray if its channels differ by at most this value (0..255) on average
Slices = dict[str, "pd.Categorical[str]"]


def slice_photos(dataset: Dataset, manifest: pd.DataFrame) -> Slices:
    """Divide photos into groups by brightness, colour, orientation and size.

    Args:
        dataset: Photos to divide into groups.
        manifest: Manifest rows of these photos, in the same order.

    Returns:
        Dictionary from the name of a property to each photo's group, [num_photos]. The properties
        are brightness and short side (three groups each: terciles), colour, and orientation. Short
        side and orientation are those of the source file. A property is skipped if all photos are
        in the same group.
    """
    measured = []
    for row in dataset.rows:
        # Every fourth pixel in each direction is enough to estimate these means.
        pixels = dataset.images[row, ::4, ::4].astype(np.float64)
        measured.append(((pixels @ LUMA).mean(), np.ptp(pixels, axis=2).mean()))
    brightness, colourfulness = np.array(measured).T
    width, height = manifest["width"].to_numpy(), manifest["height"].to_numpy()
    slices = {
        "brightness": _name(_terciles(brightness), "dark", "medium", "bright"),
        "colour": _name(colourfulness <= MAX_GRAY, "colour", "gray"),
        "orientation": _name(np.sign(width - height) + 1, "tall", "square", "wide"),
        "short side": _name(_terciles(np.minimum(width, height)), "small", "medium", "large"),
    }
    return {name: groups for name, groups in slices.items() if len(set(groups)) > 1}


def tabulate_slices(
    slices: Slices,
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
        Table with one row per group of photos; groups without known entries are skipped. Columns:
        `slice`, `group`, `photos`, `known` (number of known entries; omitted if all are known),
        `loss`, `f1_micro`, `f1_micro_low` and `f1_micro_high` (95% confidence interval; NaN for a
        single photo or album), `precision_micro`, `recall_micro` and `errors_per_photo` (mean
        number of wrong predictions). The table has no columns if it has no rows.
    """
    rows = []
    known = is_known(targets)
    errors = ((targets != predicted) & known).sum(axis=1)
    for name, groups in slices.items():
        for group in groups.categories:
            chosen = np.asarray(groups == group)
            if not known[chosen].any():
                continue
            drawn = weights[:, chosen]
            drawn = drawn[drawn.any(axis=1)]  # skip resamples that contain none of the photos
            if (drawn == drawn[:, :1]).all():  # a single photo or album cannot be resampled
                drawn = drawn[:1]
            found = classification_scores(targets[chosen], predicted[chosen], drawn)
            low, high = confidence_interval(found["f1_micro"])
            rows.append(
                {
                    "slice": name,
                    "group": group,
                    "photos": chosen.sum(),
                    "known": known[chosen].sum(),
                    "loss": binary_cross_entropy(targets[chosen], logits[chosen]),
                    "f1_micro": found["f1_micro"][0],
                    "f1_micro_low": low,
                    "f1_micro_high": high,
                    "precision_micro": found["precision_micro"][0],
                    "recall_micro": found["recall_micro"][0],
                    "errors_per_photo": errors[chosen].mean(),
                }
            )
    table = pd.DataFrame(rows)
    return table.drop(columns="known", errors="ignore") if all_known(targets) else table


def _terciles(values: np.ndarray) -> np.ndarray:
    """Return 0 for values in the lowest third, 1 in the middle third, 2 in the highest third."""
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left")


def _name(groups: np.ndarray, *names: str) -> "pd.Categorical[str]":
    """Replace each photo's group number (0, 1, ...) with the name of the group."""
    return pd.Categorical.from_codes(groups.astype(int), pd.Index(names))
