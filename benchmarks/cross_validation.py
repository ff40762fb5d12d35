"""Compare cross-validated scores with scores on many unseen photos.

Run `python -m benchmarks.cross_validation` in a project with the cached features of many photos
(`phototag recipe pretrained`, then `dvc repro embed`). Random subsets of the photos are judged in
two ways: by nested cross-validation, as with `split.test: 0`, and on a tenth of the subset, as with
`split.test: 0.1`. The truth is the score on all photos outside the subset, of the model that was
fitted on the whole subset, or on nine tenths of it. The table has the mean truth, the mean error of
the estimate (`bias`) and its standard deviation, the share of 95% intervals that contain the truth,
and the mean width of the intervals. It is written to docs/research/results/cross_validation.csv.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.claims.collection import RESULTS
from benchmarks.learning_curve import CPU, solve
from phototag.base.files import write_table
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.evaluation.held_out import OUT_OF_FOLD, Predictions, choose_point, cross_validate
from phototag.metrics.bootstrap import bootstrap_weights, confidence_interval
from phototag.network.inference import predict_logits
from phototag.registry.predictions import compute_scores
from phototag.schema.params import Params, read_all_params

SIZES, SUBSETS = (100, 300, 1000), 20
METRICS = ("loss", "f1_micro", "f1_macro", "mAP_macro")


def judge(photos: Dataset, size: int, seed: int, params: Params) -> Iterator[dict[str, Any]]:
    """Yield the scores of a random subset, and the truth, for both ways of judging."""
    order = np.random.default_rng([size, seed]).permutation(len(photos))
    subset, rest = (take_photos(photos, np.sort(part)) for part in (order[:size], order[size:]))
    seeded = params.model_copy(update={"seed": seed})
    train, tenth = (take_photos(photos, part) for part in np.split(order[:size], [-size // 10]))
    ways: list[tuple[str, Dataset, Dataset | None]] = [
        ("cross-validation", subset, None),
        ("a tenth", train, tenth),
    ]
    for way, fitted, test in ways:
        head, logits = solve(fitted, seeded, nested=test is None)
        point = choose_point(fitted, logits[0], OUT_OF_FOLD, params.evaluate, seed)
        if test is None:
            found = cross_validate(fitted, logits, params.evaluate, seed)
        else:
            found = point.predict(test, predict_logits(head, test, CPU))
        truth = point.predict(rest, predict_logits(head, rest, CPU))
        estimate, true = score(found, params.evaluate.resamples, seed), score(truth, 0, seed)
        for metric in METRICS:
            low, high = confidence_interval(estimate[metric])
            yield {
                "photos": size,
                "way": way,
                "metric": metric,
                "truth": true[metric][0],
                "bias": estimate[metric][0] - true[metric][0],
                "coverage": low <= true[metric][0] <= high,
                "width": high - low,
            }


def score(found: Predictions, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Return each metric on the photos and on resamples of them, float64 [1 + resamples]."""
    photos = found.photos
    weights = bootstrap_weights(len(photos), resamples, seed, photos.groups)
    return compute_scores(
        photos.targets, found.predicted, found.probabilities, found.logits, weights
    )


def main() -> None:
    """Judge all subsets, print the table and write it."""
    names = ("images.npy", "manifest.csv", "splits.csv")
    parts = read_datasets(*(Path("data", name) for name in names))
    photos = join_datasets(list(parts.values()))
    photos = replace(photos, images=np.load("data/features.npy"))
    params = read_all_params()
    runs = [(size, seed) for size in SIZES for seed in range(SUBSETS)]
    rows = pd.DataFrame([row for run in tqdm(runs) for row in judge(photos, *run, params)])
    keys = ["photos", "way", "metric"]
    table = rows.groupby(keys, sort=False)[["truth", "bias", "coverage", "width"]].mean()
    table["deviation"] = rows.groupby(keys, sort=False)["bias"].std()
    print(table.round(3).to_string())
    write_table(RESULTS / "cross_validation.csv", table.reset_index())


if __name__ == "__main__":
    main()
