"""Compare the trained network with a logistic regression on the pixels.

Run `python -m benchmarks.pixel_baseline` after `dvc repro`; both models use the same splits. A
linear model can use the brightness and color at each position, but not shapes. The difference
between the scores of both models shows how much the network learned about shapes.

The weights of an L2-regularised logistic regression are in the space spanned by the train photos.
Projecting all photos onto this space with an SVD therefore gives the same solution faster.
"""

from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression

from phototag.base.files import read_json
from phototag.dataset.dataset import Dataset, read_datasets
from phototag.dataset.manifest import read_kept
from phototag.evaluation.result import evaluate, headline
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import sigmoid
from phototag.metrics.selection import SCORE_PREFIXES, find_evaluated
from phototag.schema.params import read_all_params

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # values of C; the best one is chosen on val


def pixels(dataset: Dataset) -> np.ndarray:
    """Return the pixels of a dataset in 0..1, float32 [num_photos, size * size * 3]."""
    chosen = dataset.images[dataset.rows].reshape(len(dataset), -1)
    return np.asarray(chosen / np.float32(255), np.float32)


def fit_label(
    x: np.ndarray, y: np.ndarray, others: list[np.ndarray], strength: float
) -> list[np.ndarray]:
    """Fit a logistic regression for one label; return its logits for each array in `others`."""
    if y.min() == y.max():
        return [np.full(len(other), -20.0 if y.max() == 0 else 20.0) for other in others]
    model = LogisticRegression(C=strength, max_iter=1000).fit(x, y)
    return [model.decision_function(other) for other in others]


def main() -> None:
    """Fit one model per value of C, choose the one with the best micro F1 on val, print scores."""
    params = read_all_params()
    datasets = read_datasets(
        Path("data/images.npy"), Path("data/manifest.csv"), Path("data/splits.csv")
    )
    manifest = read_kept(Path("data/manifest.csv"))
    judged = "test" if len(datasets["test"]) else "val"
    train, val, test = datasets["train"], datasets["val"], datasets[judged]
    x = pixels(train)
    mean = x.mean(axis=0)
    _, _, basis = np.linalg.svd(x - mean, full_matrices=False)
    x = (x - mean) @ basis.T
    others = [(pixels(dataset) - mean) @ basis.T for dataset in (val, test)]

    best: dict[str, float] = {}
    best_val = -1.0
    for strength in STRENGTHS:
        fitted = Parallel(n_jobs=-1)(
            delayed(fit_label)(x, train.targets[:, label], others, strength)
            for label in range(len(train.labels))
        )
        val_logits, test_logits = (np.stack(logits, axis=1) for logits in zip(*fitted, strict=True))
        logits = {"val": val_logits, judged: test_logits}
        result = evaluate(datasets, logits, manifest, params.evaluate, params.seed)
        on_val = f1_score(
            val.targets, sigmoid(val_logits) >= result.point.thresholds.values, average="micro"
        )
        if on_val > best_val:
            best_val, best = on_val, headline(result.tables["scores"]) | {"C": strength}
    scores = read_json(Path("reports/evaluate/metrics.json"))
    prefix = SCORE_PREFIXES[find_evaluated(scores)]
    network = {name.removeprefix(prefix): value for name, value in scores.items()}
    print(f"{'':12} {'micro F1':>9} {'macro F1':>9} {'mAP':>7} {'loss':>7}")
    for name, scores in (("pixels", best), ("network", network)):
        figures = f"{scores['f1_micro']:9.3f} {scores['f1_macro']:9.3f} {scores['mAP']:7.3f}"
        print(f"{name:12} {figures} {scores['loss']:7.4f}")
    print(f"gap in micro F1: {network['f1_micro'] - best['f1_micro']:.3f} (C = {best['C']:g})")


if __name__ == "__main__":
    main()
