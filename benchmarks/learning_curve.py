"""What a solved head scores on test, by how many labelled photos it had.

In a project whose features are there (`phototag recipe pretrained`, your photos, `dvc repro`),
`python -m benchmarks.learning_curve 100 300 1000 2000` takes so many of the photos that are not in
test, a ninth of them for val, and does what the pipeline does: the strength of L2 is chosen on val,
thresholds on val and out of fold. Scores are means over three splits, each on its own tenth of all
photos.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from phototag.base.params import Params, read_params
from phototag.data.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.data.splits import split_groups
from phototag.evaluation.scores import draw_weights
from phototag.evaluation.thresholds import RESAMPLES, choose_thresholds
from phototag.network.features import standardize_features
from phototag.network.inference import predict_logits
from phototag.network.metrics import (
    binary_cross_entropy,
    f1_score,
    mean_average_precision,
    sigmoid,
)
from phototag.network.model import Standardize
from phototag.training.loop import fit
from phototag.training.solver import predict_out_of_fold

SEEDS = (0, 1, 2)
CPU = torch.device("cpu")


def score(labelled: Dataset, test: Dataset, seed: int) -> tuple[float, float, float]:
    """Return micro F1, macro F1 and mAP on test, of a head that learns from these photos."""
    side = split_groups(labelled.targets, list(labelled.groups), (8 / 9, 1 / 9), seed)
    train, val = (take_photos(labelled, np.flatnonzero(side == part)) for part in (0, 1))
    scores = score_head(train, val, test, read_params().model_copy(update={"seed": seed}))
    return scores[:3]


def score_head(
    train: Dataset, val: Dataset, test: Dataset, params: Params
) -> tuple[float, float, float, float]:
    """Return micro F1, macro F1, mAP and loss on test, of a head that is solved on these splits."""
    head, kept = solve(train, val, params)
    return judge(head, predict_out_of_fold(head, train, params, kept), train, val, test, params)


def solve(train: Dataset, val: Dataset, params: Params) -> tuple[torch.nn.Sequential, int]:
    """Solve a head as `train` does; return it with the epoch whose strength of L2 is kept."""
    width, num_labels = train.images.shape[1], len(train.labels)
    head = torch.nn.Sequential(Standardize(width), torch.nn.Linear(width, num_labels))
    standardize_features(head[0], train.images, train.rows)
    return head, list(fit(head, train, val, params))[-1].kept


def judge(
    head: torch.nn.Module,
    out_of_fold: np.ndarray,
    train: Dataset,
    val: Dataset,
    test: Dataset,
    params: Params,
) -> tuple[float, float, float, float]:
    """Return micro F1, macro F1, mAP and loss on test; thresholds as `evaluate` chooses them."""
    seen = join_datasets([train, val])
    logits = np.concatenate([out_of_fold, predict_logits(head, val, CPU)])
    cuts = choose_thresholds(
        seen.targets,
        sigmoid(logits),
        params.evaluate.pooling,
        draw_weights(len(seen), RESAMPLES, params.seed, seen.groups),
    )
    found = predict_logits(head, test, CPU)
    predicted = sigmoid(found) >= cuts.values
    return (
        f1_score(test.targets, predicted, "micro"),
        f1_score(test.targets, predicted, "macro"),
        mean_average_precision(test.targets, found),
        binary_cross_entropy(test.targets, found),
    )


def main() -> None:
    """Print a row for each number of photos."""
    names = ("images.npy", "manifest.csv", "splits.csv")
    parts = read_datasets(*(Path("data", name) for name in names))
    features = np.load("data/features.npy", mmap_mode="r")
    photos = replace(join_datasets(list(parts.values())), images=features)
    print("| labelled photos | micro F1 | macro F1 | mAP |\n|---|---|---|---|")
    for count in map(int, sys.argv[1:]):
        rows = []
        for seed in SEEDS:
            side = split_groups(photos.targets, list(photos.groups), (0.9, 0.1), seed)
            rest = np.flatnonzero(side == 0)
            rest = np.random.default_rng(seed).permutation(rest)[:count]
            test = take_photos(photos, np.flatnonzero(side == 1))
            rows.append(score(take_photos(photos, rest), test, seed))
        print(f"| {count} | {' | '.join(f'{value:.3f}' for value in np.mean(rows, axis=0))} |")


if __name__ == "__main__":
    main()
