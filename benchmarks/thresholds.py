"""Compare methods that choose thresholds on one half of the photos, by F1 on the other half.

Run `python -m benchmarks.thresholds [predictions.csv ...]` (default: the file of the last
evaluation). The photos are split into random halves 20 times.
"""

import sys

import numpy as np
import pandas as pd

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.thresholds import RESAMPLES, fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import f1_score
from phototag.schema.params import read_all_params

SPLITS = 20


def read_predictions(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and probabilities, each of shape [num_photos, num_labels]."""
    table = pd.read_csv(path)
    shape = (-1, table["label"].nunique())
    targets = table["target"].fillna(UNKNOWN).to_numpy()
    return targets.reshape(shape), table["probability"].to_numpy().reshape(shape)


def judge_halves(targets: np.ndarray, probabilities: np.ndarray, pooling: float) -> pd.DataFrame:
    """Score each method of choosing thresholds; return one row per method and split."""
    rows = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(targets))
        chosen, judged = np.array_split(order, 2)
        given, plain = (targets[chosen], probabilities[chosen]), np.ones((1, len(chosen)))
        drawn = bootstrap_weights(len(chosen), RESAMPLES, seed)
        ways = {
            "0.5": np.full(targets.shape[1], 0.5),
            "best per label": fit_thresholds(*given, 0, plain).values,
            "one for all": fit_thresholds(*given, 1e9, plain).values,
            "phototag": fit_thresholds(*given, pooling, drawn).values,
        }
        for way, thresholds in ways.items():
            predicted = probabilities[judged] >= thresholds
            micro, macro = (f1_score(targets[judged], predicted, a) for a in ("micro", "macro"))
            rows.append((seed, way, micro, macro, (micro + macro) / 2))
    return pd.DataFrame(rows, columns=["seed", "way", "micro", "macro", "mean"])


def main() -> None:
    """Print the mean F1 of each method, and in how many splits phototag's F1 is higher."""
    pooling = read_all_params().evaluate.prior_strength
    for path in sys.argv[1:] or ["reports/evaluate/predictions.csv"]:
        table = judge_halves(*read_predictions(path), pooling)
        print(f"{path}: mean F1 over {SPLITS} splits, and splits in which phototag is better")
        ours = table[table["way"] == "phototag"].set_index("seed")
        for way, group in table.groupby("way", sort=False):
            figures = [
                f"{name} {group[name].mean():.3f} "
                f"({(ours[name] > group.set_index('seed')[name]).sum():2d})"
                for name in ("micro", "macro", "mean")
            ]
            print(f"  {way:<18} " + "   ".join(figures))


if __name__ == "__main__":
    main()
