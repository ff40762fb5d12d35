"""The learning curve of a linear probe: scores by number of labelled photos, and extrapolation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import read_json, write_table
from phototag.base.params import read_params
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets
from phototag.dataset.folds import FOLDS, assign_folds
from phototag.evaluation.thresholds import fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import sigmoid, weighted_cross_entropy
from phototag.metrics.ranking import average_precision_and_auroc, mean_over_labels
from phototag.network.features import read_features, standardize_features
from phototag.network.model import Standardize
from phototag.network.weights import load_model
from phototag.pages.figures import BLUE, GREY, ORANGE, figure_style, new_figure, save_figure
from phototag.training.params import TrainingParams
from phototag.training.probes import Probes

HALVINGS = 5  # number of measured sizes; each is half of the next one
REPEATS = 2  # number of random orders of the photos
RESAMPLES = 200
MIN_PHOTOS = 100
NEW_PHOTOS = 100  # number of additional photos whose gain is estimated
# Direction of each metric: 1 if higher is better, -1 if lower is better.
METRICS = {"f1_micro": 1, "f1_macro": 1, "mAP": 1, "loss": -1}
EXPONENTS = np.linspace(0.1, 1.5, 29)


def read_labelled(root: Path) -> tuple[Dataset, TrainingParams, np.ndarray]:
    """Return the features of train and val, the params, and the L2 strengths of the trained probe.

    Raises:
        InputError: Features are not cached, no probe was trained, or there are too few photos.
    """
    params = read_params(TrainingParams, root / "params.yaml")
    if params.optimizer != "lbfgs":
        raise InputError(
            "phototag curve needs the cached features of a linear probe (optimizer lbfgs): run "
            "`phototag recipe pretrained` and `dvc repro`"
        )
    data, training = root / "data", root / "reports/train/training.json"
    for file in (data / "features.npy", training, root / "models/model.safetensors"):
        if not file.is_file():
            raise InputError(f"{file} is missing: run `dvc repro`")
    parts = read_datasets(*(data / name for name in ("images.npy", "manifest.csv", "splits.csv")))
    photos = join_datasets([parts["train"], parts["val"]])
    num_groups = len(set(photos.groups or photos.files))
    if len(photos) < MIN_PHOTOS or num_groups < FOLDS:
        raise InputError(
            f"train and val have {len(photos)} photos in {num_groups} groups: a learning curve "
            f"needs {MIN_PHOTOS} photos in {FOLDS} groups: add photos"
        )
    network, _ = load_model(root / "models/model.safetensors")
    features = read_features(data / "features.npy", network[:2], photos.images)
    strengths = read_json(training).get("l2", {})
    if [*strengths] != photos.labels:
        raise InputError(
            f"{training} does not have the L2 strengths of the labels: run `dvc repro`"
        )
    return replace(photos, images=features), params, np.array([*strengths.values()])


def measure_curve(
    photos: Dataset, params: TrainingParams, l2: np.ndarray
) -> dict[str, dict[int, np.ndarray]]:
    """Fit probes on growing random subsets, and score them on the photos of held-out folds.

    For each size, each photo is predicted by a probe that was fitted on a random subset of the
    other folds. The same order of photos is used for all sizes, so that each subset contains the
    smaller ones. Groups are not divided. Thresholds for the photos of a fold are chosen on the
    predictions for the other folds. The penalties `l2` of the labels are those of the largest size.
    They are inversely proportional to the number of photos: the prior distribution of the weights
    is then the same.

    Returns:
        For each metric, a dictionary from number of photos to the metric on all photos (first
        value) and on each resample of the photos, float64 [1 + `RESAMPLES`]. Each resample uses a
        random repeat.
    """
    largest = len(photos) * (FOLDS - 1) // FOLDS
    sizes = [largest // 2**halving for halving in reversed(range(HALVINGS))]
    weights = bootstrap_weights(len(photos), RESAMPLES, params.seed, photos.groups)
    scores = {name: {size: np.zeros((REPEATS, len(weights))) for size in sizes} for name in METRICS}
    standardize = Standardize(photos.images.shape[1])
    standardize_features(standardize, photos.images, photos.rows)
    bar = tqdm(total=REPEATS * len(sizes), desc="learning curve", disable=None)
    for repeat in range(REPEATS):
        folds = assign_folds(photos, params.seed + repeat)
        names = np.unique(photos.groups or photos.files, return_inverse=True)[1]
        rank = np.random.default_rng([params.seed, repeat]).permutation(names.max() + 1)[names]
        for size in sizes:
            used = np.stack([_draw_subset(folds != fold, rank, size) for fold in np.unique(folds)])
            probes = Probes(photos, used, standardize, params)
            for strength in np.unique(l2):
                probes.fit(strength * largest / size, np.flatnonzero(l2 == strength))
            logits = probes.predict(folds - 1)
            bar.update()
            for name, values in _score(photos, logits, folds, weights).items():
                scores[name][size][repeat, : len(values)] = values
                scores[name][size][repeat, len(values) :] = np.nan
    bar.close()
    drawn = np.random.default_rng(params.seed).integers(REPEATS, size=len(weights))
    return {
        name: {
            size: np.append(values[:, 0].mean(), values[drawn[1:], np.arange(1, len(weights))])
            for size, values in found.items()
        }
        for name, found in scores.items()
    }


def _draw_subset(allowed: np.ndarray, rank: np.ndarray, size: int) -> np.ndarray:
    """Return which photos are in a subset of at least `size` of the allowed photos, bool.

    Photos of low rank come first. The photos of a group have the same rank.
    """
    last = np.sort(rank[allowed])[:size][-1]
    return np.asarray(allowed & (rank <= last))


def _score(
    photos: Dataset, logits: np.ndarray, folds: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics on all photos and on each resample."""
    probabilities = sigmoid(logits)
    predicted = np.zeros(logits.shape, bool)
    for fold in np.unique(folds):
        known = folds != fold
        plain = np.ones((1, int(known.sum())))
        cuts = fit_thresholds(photos.targets[known], probabilities[known], 10, plain).values
        predicted[~known] = probabilities[~known] >= cuts
    precision, _ = average_precision_and_auroc(photos.targets, probabilities, weights)
    f1 = classification_scores(photos.targets, predicted, weights)
    return {
        "f1_micro": f1["f1_micro"],
        "f1_macro": f1["f1_macro"],
        "mAP": mean_over_labels(precision),
        "loss": weighted_cross_entropy(photos.targets, logits, weights),
    }


def extrapolate(sizes: Sequence[int], errors: np.ndarray, targets: Sequence[float]) -> np.ndarray:
    """Fit the power law `a + b * size^-c` to each row of errors, and evaluate it at other sizes.

    `a` and `b` are at least 0, and `c` is one of `EXPONENTS`. The squares are weighted by the
    sizes, because the error of a large subset varies less and is nearer to the new sizes.

    Args:
        sizes: Numbers of photos, [num_sizes].
        errors: Errors (lower is better), float [num_rows, num_sizes].
        targets: Other numbers of photos, [num_targets].

    Returns:
        Predicted errors, float64 [num_rows, num_targets].
    """
    given, wanted = np.asarray(sizes, float), np.asarray(targets, float)
    weight = given / given.sum()
    best = np.full(len(errors), np.inf)
    found = np.zeros((len(errors), len(wanted)))
    for exponent in EXPONENTS:
        x = (given / given[-1]) ** -exponent
        mean, middle = errors @ weight, x @ weight
        slope = ((errors - mean[:, None]) @ (weight * (x - middle))) / (weight @ (x - middle) ** 2)
        slope = np.maximum(slope, 0)
        floor = mean - slope * middle
        # A floor below 0 is replaced by 0, and the slope is fitted again.
        negative = floor < 0
        slope = np.where(negative, errors @ (weight * x) / (weight @ x**2), slope)
        floor = np.maximum(floor, 0)
        loss = (errors - floor[:, None] - np.outer(slope, x)) ** 2 @ weight
        better = loss < best
        best = np.where(better, loss, best)
        values = floor[:, None] + np.outer(slope, (wanted / given[-1]) ** -exponent)
        found[better] = values[better]
    return found


def tabulate_curve(scores: Mapping[str, Mapping[int, np.ndarray]], number: int) -> pd.DataFrame:
    """Tabulate the measured scores, the extrapolated ones, and a check of the extrapolation.

    Args:
        scores: Scores returned by `measure_curve`.
        number: Number of labelled photos.

    Returns:
        Table with the columns `metric`, `kind`, `photos`, `value`, `low` and `high` (2.5th and
        97.5th percentile of the resamples). If the value is extrapolated, the interval is widened
        by the error of the check, multiplied by the number of doublings of the photos. The kind is
        `measured`; `extrapolated`; `gain`, the difference between the extrapolated scores for this
        number of photos and for all labelled photos; or `check`, the largest measured size,
        extrapolated from the smaller sizes.
    """
    rows = []
    wanted = [number, number + NEW_PHOTOS, 2 * number]
    for name, sign in METRICS.items():
        sizes = list(scores[name])
        values = np.stack([scores[name][size] for size in sizes], axis=1)
        values = values[np.isfinite(values).all(axis=1)]  # mAP uses fewer resamples of many photos
        offset = 1 if sign > 0 else 0  # the error of F1 and mAP is their distance from 1
        errors = offset - sign * values
        beyond = sign * (offset - extrapolate(sizes, errors, wanted))
        check = sign * (offset - extrapolate(sizes[:-1], errors[:, :-1], sizes[-1:]))
        missed = abs(check[0, 0] - values[0, -1])  # when the number of photos was doubled
        doublings = np.log2(np.array(wanted) / sizes[-1])
        for kind, numbers, columns, margin in (
            ("measured", sizes, values, 0),
            ("extrapolated", wanted, beyond, missed * doublings),
            (
                "gain",
                wanted[1:],
                beyond[:, 1:] - beyond[:, :1],
                missed * (doublings[1:] - doublings[0]),
            ),
            ("check", sizes[-1:], check, 0),
        ):
            low, high = np.percentile(columns[1:], [2.5, 97.5], axis=0)
            bounds = zip(numbers, columns[0], low - margin, high + margin, strict=True)
            rows += [(name, kind, *row) for row in bounds]
    return pd.DataFrame(rows, columns=["metric", "kind", "photos", "value", "low", "high"])


def describe_curve(table: pd.DataFrame) -> str:
    """Return a few lines of text: scores by number of photos, gains, and the check."""
    rows: dict[Any, Any] = {(row.kind, row.photos, row.metric): row for row in table.itertuples()}
    lines = ["  photos  " + "".join(f"{name:<26}" for name in METRICS)]
    shown = {"measured": "", "extrapolated": " (extrapolated)"}
    sizes = {(photos, kind) for kind, photos, _ in rows if kind in shown}
    for photos, kind in sorted(sizes):
        found = (rows[kind, photos, name] for name in METRICS)
        texts = (f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})" for row in found)
        lines.append(f"  {photos:>6}  " + "".join(f"{text:<26}" for text in texts) + shown[kind])
    gains = [row for row in rows.values() if (row.kind, row.metric) == ("gain", "f1_micro")]
    lines += [
        f"{row.photos - gains[0].photos + NEW_PHOTOS} more labelled photos: micro F1 "
        f"{row.value:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
        for row in gains
    ]
    (check,) = (row for row in rows.values() if (row.kind, row.metric) == ("check", "f1_micro"))
    measured = rows["measured", check.photos, "f1_micro"].value
    lines.append(
        f"Check: from the smaller sizes, the extrapolation predicts micro F1 {check.value:.3f} "
        f"({check.low:.3f} to {check.high:.3f}) for {check.photos} photos; measured: "
        f"{measured:.3f}"
    )
    return "\n".join(lines)


def draw_curve(table: pd.DataFrame, path: Path) -> None:
    """Plot F1 and mAP over the number of labelled photos, with intervals."""
    with figure_style():
        figure, axes = new_figure("Learning curve", "labelled photos", "score on held-out photos")
        for name, color in zip(("f1_micro", "f1_macro", "mAP"), (BLUE, ORANGE, GREY), strict=True):
            for kind, style in (("measured", "o-"), ("extrapolated", "o:")):
                rows = table[(table["metric"] == name) & (table["kind"] == kind)]
                label = name if kind == "measured" else None
                axes.plot(rows["photos"], rows["value"], style, color=color, label=label)
                axes.fill_between(
                    rows["photos"], rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0
                )
        axes.set_xscale("log")
        axes.set_ylim(0, 1)
        axes.legend(title="dotted: extrapolated")
        save_figure(figure, path)


def write_curve(root: Path) -> str:
    """Measure the learning curve, write it to reports/curve/, and return it as text."""
    photos, params, l2 = read_labelled(root)
    table = tabulate_curve(measure_curve(photos, params, l2), len(photos))
    folder = root / "reports/curve"
    write_table(folder / "curve.csv", table)
    draw_curve(table, folder / "curve.png")
    return f"{describe_curve(table)}\n{folder / 'curve.csv'}, {folder / 'curve.png'}"
