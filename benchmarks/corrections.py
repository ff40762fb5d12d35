"""Evaluate the ranking of likely label errors, and the choice of photos to label next.

Run it in a project with cached features (`phototag recipe pretrained`, then `dvc repro`).

`python -m benchmarks.corrections errors [SEED...]` flips 5 % of the train labels. Most flipped
labels are positives that become negatives, because people forget labels more often than they invent
them. A linear probe is fitted on the noisy labels. Its out-of-fold probabilities are used to rank
suspected errors, once with phototag's rule and once with cleanlab (`make setup-bench`). The first
table shows precision and recall of the top suspects. The second table shows test scores of probes
trained with the noisy labels, with the top `CORRECTED` suspects corrected, and without noise.

`python -m benchmarks.corrections next [SEED...]` starts with 200 labelled photos and adds 100 at a
time, up to 1 000. The photos are chosen at random, by uncertainty, or like `phototag review
--ranking next` does. Scores on a test set of a tenth of the photos are averaged over the seeds
(default: 0, 1 and 2).
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning_curve import CPU, SEEDS, judge, solve, solve_on_features
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.label_errors import find_label_errors
from phototag.metrics.losses import sigmoid
from phototag.network.inference import predict_logits
from phototag.review.rankings import measure_uncertainty, order_photos
from phototag.schema.params import Params, read_all_params
from phototag.splitting.splits import split_groups

NOISE = 0.05  # share of flipped labels
LOST = 0.8  # share of positives among the flipped labels; at most half of all positives flip
FIRST = (200, 1000, 5000)
CORRECTED = 1000
START, STEP, END = 200, 100, 1000

Ranking = tuple[np.ndarray, np.ndarray]  # photos and labels, most probable error first


def add_noise(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return a copy of `targets` in which a share `NOISE` of the labels is flipped."""
    rng, noisy = np.random.default_rng(seed), targets.copy().ravel()
    positives, negatives = np.flatnonzero(noisy == 1), np.flatnonzero(noisy == 0)
    number = round(NOISE * noisy.size)
    lost = min(round(LOST * number), len(positives) // 2)
    turned = np.concatenate(
        [rng.choice(positives, lost, replace=False), rng.choice(negatives, number - lost, False)]
    )
    noisy[turned] = 1 - noisy[turned]
    return noisy.reshape(targets.shape)


def rank_suspects(targets: np.ndarray, probabilities: np.ndarray) -> Iterator[tuple[str, Ranking]]:
    """Yield the name of each method and its ranking of suspected label errors."""
    found = find_label_errors(targets, probabilities)
    yield "phototag", (found["photo"].to_numpy(), found["label"].to_numpy())
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from cleanlab.rank import get_label_quality_scores

    lists = [np.flatnonzero(row).tolist() for row in targets]
    issues = find_multilabel_issues_per_class(lists, probabilities, n_jobs=1)
    # With two classes, all quality scores of cleanlab give the same order.
    quality = np.column_stack(
        [
            get_label_quality_scores(given, np.column_stack([1 - p, p]), method="self_confidence")
            for given, p in zip(targets.T.astype(int), probabilities.T, strict=True)
        ]
    )
    order = np.argsort(np.where(issues, quality, np.inf), axis=None, kind="stable")
    photos, labels = np.unravel_index(order[: issues.sum()], issues.shape)
    yield "cleanlab", (photos, labels)


def compare_errors(parts: dict[str, Dataset], params: Params, seeds: Sequence[int]) -> None:
    """Print precision and recall of the rankings, and test scores after corrections."""
    train, val, test = (parts[split] for split in ("train", "val", "test"))
    ranked: dict[str, list[list[float]]] = {}
    scored: dict[str, list[tuple[float, float, float, float]]] = {}
    for seed in seeds:
        seeded = params.model_copy(update={"seed": seed})
        noisy = replace(train, targets=add_noise(train.targets, seed))
        wrong = noisy.targets != train.targets
        known = join_datasets([noisy, val])
        head, (logits,) = solve(known, seeded)
        scores = judge(head, logits, known, test, seeded)
        scored.setdefault("with the noise", []).append(scores)
        settings = {"without noise": train.targets}
        for name, (photos, labels) in rank_suspects(noisy.targets, sigmoid(logits[: len(noisy)])):
            hits = wrong[photos, labels].cumsum()
            row = [float(len(photos))]
            for first in FIRST:
                found = hits[min(first, len(hits)) - 1]
                row += [found / min(first, len(hits)), found / wrong.sum()]
            ranked.setdefault(name, []).append(row)
            chosen = photos[:CORRECTED], labels[:CORRECTED]
            corrected = noisy.targets.copy()
            corrected[chosen] = train.targets[chosen]
            settings[f"top {CORRECTED} of {name} corrected"] = corrected
        for name, targets in settings.items():
            known = join_datasets([replace(train, targets=targets), val])
            head, (logits,) = solve(known, seeded)
            scores = judge(head, logits, known, test, seeded)
            scored.setdefault(name, []).append(scores)
    heads = [f"{metric} at {first}" for first in FIRST for metric in ("precision", "recall")]
    print_table(["ranking", "suspects", *heads], ranked)
    print_table(["train", "micro F1", "macro F1", "mAP", "loss"], scored)


def choose_photos(
    way: str, pool: Dataset, known: np.ndarray, seed: int, params: Params
) -> np.ndarray:
    """Return the next `STEP` photos to label, as positions in the pool."""
    rest = np.flatnonzero(~known)
    if way == "at random":
        return np.random.default_rng([seed, known.sum()]).permutation(rest)[:STEP]
    labelled = take_photos(pool, np.flatnonzero(known))
    head, _ = solve(labelled, params.model_copy(update={"seed": seed}))
    unlabelled = take_photos(pool, rest)
    probabilities = sigmoid(predict_logits(head, unlabelled, CPU))
    hidden = np.full_like(unlabelled.targets, UNKNOWN)
    uncertainty = measure_uncertainty(hidden, probabilities)
    if way == "by uncertainty":
        return rest[np.argsort(-uncertainty, kind="stable")[:STEP]]
    features = head[0](torch.from_numpy(pool.images[unlabelled.rows])).numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    chosen: np.ndarray = rest[order_photos(uncertainty, features, STEP)]
    return chosen


def compare_acquisitions(parts: dict[str, Dataset], params: Params, seeds: Sequence[int]) -> None:
    """Print the learning curve of each method of choosing photos."""
    photos = join_datasets(list(parts.values()))
    curves: dict[str, list[list[tuple[float, float, float]]]] = {}
    for seed in seeds:
        side = split_groups(photos.targets, list(photos.groups), (0.9, 0.1), seed)
        pool, test = (take_photos(photos, np.flatnonzero(side == part)) for part in (0, 1))
        for way in ("at random", "by uncertainty", "phototag"):
            known = np.zeros(len(pool), bool)
            known[np.random.default_rng(seed).permutation(len(pool))[:START]] = True
            curve = [solve_on_features(take_photos(pool, np.flatnonzero(known)), test, seed)[:3]]
            while known.sum() < END:
                known[choose_photos(way, pool, known, seed, params)] = True
                curve.append(
                    solve_on_features(take_photos(pool, np.flatnonzero(known)), test, seed)[:3]
                )
            curves.setdefault(way, []).append(curve)
    counts = [str(count) for count in range(START, END + 1, STEP)]
    for index, metric in enumerate(("micro F1", "macro F1", "mAP")):
        rows = {way: np.array(curve)[:, :, index] for way, curve in curves.items()}
        print_table([f"{metric}, labelled photos", *counts], rows)


def print_table(heads: list[str], rows: Mapping[str, Any]) -> None:
    """Print a Markdown table of the means over the seeds."""
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, values in rows.items():
        means = np.mean(np.asarray(values, float), axis=0)
        cells = [f"{value:.0f}" if value > 1 else f"{value:.3f}" for value in means]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run the comparison selected on the command line: errors or next."""
    compare = {"errors": compare_errors, "next": compare_acquisitions}
    if len(sys.argv) < 2 or sys.argv[1] not in compare:
        sys.exit("usage: python -m benchmarks.corrections errors|next [SEED...]")
    names = ("images.npy", "manifest.csv", "splits.csv")
    features = np.load("data/features.npy")
    parts = read_datasets(*(Path("data", name) for name in names))
    parts = {split: replace(photos, images=features) for split, photos in parts.items()}
    seeds = [int(seed) for seed in sys.argv[2:]] or list(SEEDS)
    compare[sys.argv[1]](parts, read_all_params(), seeds)


if __name__ == "__main__":
    main()
