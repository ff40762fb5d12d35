"""What a solved head loses where half of train is unknown, and where that is taken for absent.

In a project whose features are there (`phototag recipe pretrained`, your photos, `dvc repro`),
`python -m benchmarks.unknown_labels [DRAWS]` hides half of the entries of train at random, and does
what the pipeline does: the strength of L2 is chosen on val, thresholds on val and out of fold. Val
and test stay known. Beside it, a head that takes what is hidden for absent, one that sees half of
the photos with all of their labels, and one that sees everything. Scores on test, means over the
draws, three by default.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.learning_curve import score_head
from phototag.dataset.dataset import Dataset, read_datasets, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.schema.params import read_all_params

HIDDEN = 0.5  # of train's entries


def hide(train: Dataset, seed: int) -> Iterator[tuple[str, Dataset]]:
    """Yield what is known of train, in words, and train with that."""
    rng = np.random.default_rng(seed)
    hidden = rng.random(train.targets.shape) < HIDDEN
    half = rng.permutation(len(train))[: round((1 - HIDDEN) * len(train))]
    yield "everything", train
    yield "half of the entries", replace(train, targets=np.where(hidden, UNKNOWN, train.targets))
    yield "half of the photos", take_photos(train, np.sort(half))
    yield (
        "half of the entries, the rest taken for absent",
        replace(train, targets=np.where(hidden, 0, train.targets)),
    )


def main() -> None:
    """Print each head's scores as they come, and at last a row for each way."""
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
        for told, train in hide(parts["train"], seed):
            found = score_head(train, parts["val"], parts["test"], seeded)
            print(seed, told, *(f"{value:.4f}" for value in found), file=sys.stderr)
            rows.setdefault(told, []).append(found)
    print("| known of train | micro F1 | macro F1 | mAP | loss |\n|---|---|---|---|---|")
    for told, scores in rows.items():
        print(f"| {told} | {' | '.join(f'{value:.3f}' for value in np.mean(scores, axis=0))} |")


if __name__ == "__main__":
    main()
