"""Measure linear probes trained with half of the train labels unknown or replaced by 0.

Run `python -m benchmarks.unknown_labels [DRAWS]` in a project with cached features (`phototag
recipe pretrained`, then `dvc repro`). Half of the train labels are hidden at random; val and test
keep all labels. As in the pipeline, the L2 strengths and the thresholds are chosen by
cross-validation. For comparison, one probe is trained with 0 in place of hidden labels, one with
half of the photos and all of their labels, and one with all labels. The table shows test scores
averaged over DRAWS random choices of the hidden labels (default: 3).
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.learning_curve import judge, solve
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.schema.params import read_all_params

HIDDEN = 0.5  # share of hidden train labels


def hide(train: Dataset, seed: int) -> Iterator[tuple[str, Dataset]]:
    """Yield descriptions of the known labels, each with a copy of `train` with these labels."""
    rng = np.random.default_rng(seed)
    hidden = rng.random(train.targets.shape) < HIDDEN
    half = rng.permutation(len(train))[: round((1 - HIDDEN) * len(train))]
    yield "everything", train
    yield "half of the labels", replace(train, targets=np.where(hidden, UNKNOWN, train.targets))
    yield "half of the photos", take_photos(train, np.sort(half))
    yield (
        "half of the labels, 0 for the others",
        replace(train, targets=np.where(hidden, 0, train.targets)),
    )


def main() -> None:
    """Print the scores of each probe, and a table of their means."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    names = ("images.npy", "manifest.csv", "splits.csv")
    features = np.load("data/features.npy", mmap_mode="r")
    parts = {
        split: replace(photos, images=features)
        for split, photos in read_datasets(*(Path("data", name) for name in names)).items()
    }
    params, rows = read_all_params(), dict[str, list[tuple[float, float, float, float]]]()
    for seed in range(draws):
        seeded = params.model_copy(update={"seed": seed})
        for known, train in hide(parts["train"], seed):
            photos = join_datasets([train, parts["val"]])
            head, (logits,) = solve(photos, seeded)
            found = judge(head, logits, photos, parts["test"], seeded)
            print(seed, known, *(f"{value:.4f}" for value in found), file=sys.stderr)
            rows.setdefault(known, []).append(found)
    print("| known of train | micro F1 | macro F1 | mAP | loss |\n|---|---|---|---|---|")
    for known, scores in rows.items():
        print(f"| {known} | {' | '.join(f'{value:.3f}' for value in np.mean(scores, axis=0))} |")


if __name__ == "__main__":
    main()
