"""Groups of photos in which a weakness would show."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import all_known, is_known
from phototag.metrics.bootstrap import confidence_interval
from phototag.metrics.classification import micro_scores
from phototag.metrics.losses import binary_cross_entropy

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's mode L
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
    "wrong_per_photo",
]
PARTLY = "not all are known"
GRAY = 2.0  # mean difference between the channels, of 255, up to which a photo counts as gray


def slice_photos(dataset: Dataset, manifest: pd.DataFrame) -> dict[str, np.ndarray]:
    """Sort photos into groups by what they look like.

    Args:
        dataset: The photos.
        manifest: Their manifest rows, in the same order.

    Returns:
        Name of the slicing -> each photo's group, strings [num_photos]: brightness and short side
        of the source (terciles), number of labels (of photos whose every label is known), colour,
        orientation of the source as stored.
        Where all photos are of one group, the slicing is left out.
    """
    brightness, colourful = _look(dataset)
    width, height = manifest["width"].to_numpy(), manifest["height"].to_numpy()
    count = np.minimum((dataset.targets > 0).sum(axis=1), 4)
    count[~is_known(dataset.targets).all(axis=1)] = 5
    slices = {
        "brightness": _terciles(brightness, ("dark", "medium", "bright")),
        "number of labels": np.array(["none", "1", "2", "3", "4 or more", PARTLY])[count],
        "colour": np.where(colourful > GRAY, "colour", "gray"),
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
    """Score each group by itself.

    Args:
        slices: Of `slice_photos`.
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].
        logits: float [num_photos, num_labels].
        predicted: 0/1 [num_photos, num_labels].
        weights: Of `scores.draw_weights`.

    Returns:
        Columns slice, group, photos, known (of their entries; only where some are not),
        loss, f1_micro, f1_micro_low and f1_micro_high (95 % interval; none where nothing in the
        group can be resampled), precision_micro, recall_micro and wrong_per_photo (decisions).
    """
    rows = []
    known = is_known(targets)
    wrong = ((targets != predicted) & known).sum(axis=1)
    for name, group, chosen in _groups(slices):
        if not known[chosen].any():  # nor anything to score
            continue
        drawn = weights[:, chosen]
        drawn = drawn[drawn.any(axis=1)]  # a resample without these photos has no score
        found = micro_scores(targets[chosen], predicted[chosen], drawn)
        alike = (drawn == drawn[:, :1]).all()  # one photo, or one album
        low, high = confidence_interval(found["f1_micro"][:1] if alike else found["f1_micro"])
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
                "wrong_per_photo": wrong[chosen].mean(),
            }
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.drop(columns="known") if all_known(targets) else table


def _groups(slices: dict[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
    orders = ("dark", "small", "none", "1", "2", "3", "medium", "bright", "large")
    for name, groups in slices.items():
        present = [group for group in orders if group in groups]
        for group in [*present, *sorted(set(groups) - set(orders))]:
            yield name, group, groups == group


def _look(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return each photo's mean luma and mean difference between its channels, 0..255."""
    looks = []
    for row in dataset.rows:
        # Every fourth pixel both ways tells enough.
        pixels = dataset.images[row, ::4, ::4].astype(np.float64)
        looks.append(((pixels @ LUMA).mean(), np.ptp(pixels, axis=2).mean()))
    brightness, colourful = np.array(looks).reshape(-1, 2).T
    return brightness, colourful


def _terciles(values: np.ndarray, names: tuple[str, str, str]) -> np.ndarray:
    if not len(values):
        return np.empty(0, "<U8")
    edges = np.quantile(values, [1 / 3, 2 / 3])
    return np.array(names)[np.searchsorted(edges, values, side="left")]
