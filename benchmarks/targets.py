"""Measure how often thresholds with a precision or recall target keep it on new photos.

Run `python -m benchmarks.targets` in a project with cached features (`phototag recipe pretrained`,
then `dvc repro embed`). For each of 20 random subsets of 300 and of 1 000 photos, a linear probe is
fitted on the subset, thresholds are chosen on its out-of-fold predictions, and the thresholds are
judged on all other photos. The best threshold of the same predictions without a confidence bound
(plug-in) is judged too. The L2 strengths are chosen by cross-validation.

The benchmark prints means over labels and subsets, and writes them to
docs/research/results/targets.csv: `chosen` (share of labels that do not abstain), `kept` (share of
these whose true precision or recall is at least the target), `missed` (share of all labels whose
threshold does not keep it; at most 0.05 is promised), `precision` where something is predicted, and
`recall` (0 for labels that abstain).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.claims.collection import RESULTS
from benchmarks.learning_curve import CPU, solve
from phototag.base.files import write_table
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.dataset.targets import is_known
from phototag.evaluation.params import Target
from phototag.evaluation.targets import ABSTAIN, fit_target
from phototag.evaluation.thresholds import fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.losses import sigmoid
from phototag.network.inference import predict_logits
from phototag.schema.params import Params, read_all_params

SEEDS = range(20)
SIZES = (300, 1000)
TARGETS = (
    Target(precision=0.8),
    Target(precision=0.9),
    Target(precision=0.95),
    Target(recall=0.8),
    Target(recall=0.9),
)
MIN_POSITIVES = 5  # labels with fewer positives among the judged photos are not judged


def predict(subset: Dataset, rest: Dataset, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear probe; return the out-of-fold logits of `subset` and the logits of `rest`."""
    head, out_of_fold = solve(subset, params)
    return out_of_fold[0], predict_logits(head, rest, CPU)


def fit_plug_in(targets: np.ndarray, probabilities: np.ndarray, target: Target) -> float:
    """Return the threshold with the highest recall (or precision) that keeps the target here."""
    known = is_known(targets)
    targets, probabilities = targets[known], probabilities[known]
    best, most = ABSTAIN, -1
    for threshold in np.unique(probabilities[targets > 0])[::-1]:
        chosen = probabilities >= threshold
        hits = int(np.count_nonzero(targets[chosen] > 0))
        precision, recall = hits / chosen.sum(), hits / np.count_nonzero(targets > 0)
        if target.precision and precision >= target.precision and hits > most:
            best, most = threshold, hits
        if target.recall and recall >= target.recall:
            return float(threshold)
    return float(best)


def judge(
    subset: Dataset, rest: Dataset, own: np.ndarray, other: np.ndarray, seed: int
) -> Iterator[tuple[str, str, str, bool, float, float]]:
    """Yield target, method, label, whether the label abstains, precision and recall on `rest`."""
    weights = bootstrap_weights(len(subset), 50, seed, subset.groups)
    best_f1 = fit_thresholds(subset.targets, own, 10, weights).values
    for label, name in enumerate(subset.labels):
        truth, judged = rest.targets[:, label], other[:, label]
        if np.count_nonzero(truth > 0) < MIN_POSITIVES:
            continue
        given = subset.targets[:, label], own[:, label]
        found = [("f1", "best F1", best_f1[label])]
        for target in TARGETS:
            found.append((str(target), "bound", fit_target(*given, subset.groups, target)))
            found.append((str(target), "plug-in", fit_plug_in(*given, target)))
        for goal, method, threshold in found:
            chosen = (judged >= threshold) & is_known(truth)
            hits = np.count_nonzero(truth[chosen] > 0)
            precision = hits / chosen.sum() if chosen.any() else np.nan
            recall = hits / np.count_nonzero(truth > 0)
            yield goal, method, name, threshold == ABSTAIN, precision, recall


def measure(
    photos: Dataset, params: Params, sizes: Sequence[int] = SIZES, seeds: Sequence[int] = SEEDS
) -> pd.DataFrame:
    """Judge the thresholds of all subsets; return one row per subset, label, target and method."""
    rows = []
    for size in sizes:
        for seed in seeds:
            order = np.random.default_rng([size, seed]).permutation(len(photos))
            names = photos.groups or photos.files
            inside = {names[position] for position in order[:size]}
            left = [position for position in order[size:] if names[position] not in inside]
            subset, rest = take_photos(photos, order[:size]), take_photos(photos, np.array(left))
            own, other = map(sigmoid, predict(subset, rest, params))
            rows += [(size, seed, *row) for row in judge(subset, rest, own, other, seed)]
    columns = ["photos", "subset", "target", "method", "label", "abstains", "precision", "recall"]
    return pd.DataFrame(rows, columns=columns)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean figures of each number of photos, target and method."""
    table = table[table["target"] != "f1"]
    parts = table["target"].str.split(" ", expand=True)
    value = table["recall"].where(parts[0] == "recall", table["precision"])
    # A threshold that predicts nothing keeps every precision.
    kept = (value >= parts[1].astype(float)) | value.isna()
    chosen = ~table["abstains"]
    table = table.assign(
        chosen=chosen, missed=chosen & ~kept, kept=kept.where(chosen).astype(float)
    )
    means = table.groupby(["photos", "target", "method"])
    return means[["chosen", "kept", "missed", "precision", "recall"]].mean()


def main() -> None:
    """Measure all subsets, write the table, and print the means."""
    parts = read_datasets(
        *(Path("data", f"{n}") for n in ("images.npy", "manifest.csv", "splits.csv"))
    )
    photos = join_datasets(list(parts.values()))
    photos = replace(photos, images=np.load("data/features.npy", mmap_mode="r"))
    table = measure(photos, read_all_params())
    means = summarize(table).round(3)
    write_table(RESULTS / "targets.csv", means.reset_index())
    print(means)


if __name__ == "__main__":
    main()
