"""Measure test scores as a function of the number of labelled photos.

Run `python -m benchmarks.learning_curve CURVE 100 300 1000 2000` in a project with cached features
(`phototag recipe NAME`, then `dvc repro embed`). CURVE is the name of the curve in the results. The
numbers count the labelled photos. With a frozen backbone, a linear probe is fitted on the cached
features of all of them, and its L2 strengths and thresholds are chosen by cross-validation. Other
networks are trained from scratch on eight ninths of the photos, and their thresholds are chosen on
the other ninth. Each number is measured on three random splits, each with a tenth of all photos as
test.

The benchmark writes docs/research/results/learning_curve.csv, with one row per trained model, and
learning_curve.png. Rows of other curves are not changed.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.claims.collection import RESULTS
from phototag.base.files import write_table
from phototag.dataset.dataset import Dataset, join_datasets, read_datasets, take_photos
from phototag.dataset.stats import channel_stats
from phototag.dataset.targets import label_rates
from phototag.evaluation.thresholds import RESAMPLES, fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import binary_cross_entropy, sigmoid
from phototag.metrics.ranking import mean_average_precision
from phototag.network.features import standardize_features
from phototag.network.inference import predict_logits
from phototag.network.model import Standardize, build_model, initialize
from phototag.pages.figures import BLUE, GREEN, ORANGE, figure_style, new_figure, save_figure
from phototag.schema.params import Params, read_all_params
from phototag.splitting.splits import split_groups
from phototag.training.linear_probe import cross_validate, fit_linear_probe, predict_nested
from phototag.training.loop import fit

SEEDS = (0, 1, 2)
SCORES = ("f1_micro", "f1_macro", "mAP", "loss")
CPU = torch.device("cpu")


def solve_on_features(
    labelled: Dataset, test: Dataset, seed: int
) -> tuple[float, float, float, float]:
    """Fit a linear probe on `labelled`; return micro F1, macro F1, mAP and loss on test."""
    params = read_all_params().model_copy(update={"seed": seed})
    head, out_of_fold = solve(labelled, params)
    return judge(head, out_of_fold[0], labelled, test, params)


def solve(
    photos: Dataset, params: Params, nested: bool = False
) -> tuple[torch.nn.Sequential, np.ndarray]:
    """Fit a linear probe like the train stage; return it and the content of out_of_fold.npy.

    `nested` adds the rows that the train stage writes if there is no test split.
    """
    width, num_labels = photos.images.shape[1], len(photos.labels)
    head = torch.nn.Sequential(Standardize(width), torch.nn.Linear(width, num_labels))
    standardize_features(head[0], photos.images, photos.rows)
    probe = cross_validate(head, photos, params.seed)
    list(fit_linear_probe(probe, params))
    logits = probe.logits.numpy()[None]
    if nested:
        logits = np.concatenate([logits, predict_nested(probe, params)])
    return head, logits


def judge(
    head: torch.nn.Module, logits: np.ndarray, chosen_on: Dataset, test: Dataset, params: Params
) -> tuple[float, float, float, float]:
    """Choose thresholds like the evaluate stage; return micro F1, macro F1, mAP, loss on test.

    `logits` are those of the photos in `chosen_on`.
    """
    return score(logits, chosen_on, predict_logits(head, test, CPU), test, params)


def score(
    logits: np.ndarray, chosen_on: Dataset, found: np.ndarray, judged: Dataset, params: Params
) -> tuple[float, float, float, float]:
    """Choose thresholds on some logits; return micro F1, macro F1, mAP and loss of others."""
    cuts = fit_thresholds(
        chosen_on.targets,
        sigmoid(logits),
        params.evaluate.prior_strength,
        bootstrap_weights(len(chosen_on), RESAMPLES, params.seed, chosen_on.groups),
    )
    predicted = sigmoid(found) >= cuts.values
    return (
        f1_score(judged.targets, predicted, "micro"),
        f1_score(judged.targets, predicted, "macro"),
        mean_average_precision(judged.targets, found),
        binary_cross_entropy(judged.targets, found),
    )


def train_network(labelled: Dataset, test: Dataset, seed: int) -> tuple[float, float, float, float]:
    """Train a network on `labelled`; return micro F1, macro F1, mAP and loss on test."""
    params = read_all_params().model_copy(update={"seed": seed})
    side = split_groups(labelled.targets, list(labelled.groups), (8 / 9, 1 / 9), seed)
    train, val = (take_photos(labelled, np.flatnonzero(side == part)) for part in (0, 1))
    mean, std = (values.tolist() for values in channel_stats(Path("data/images.npy"), train.rows))
    torch.manual_seed(seed)
    network = build_model(params.model, len(train.labels), params.resize.size, mean, std)
    initialize(network, params.model, torch.from_numpy(label_rates(train.targets)).float())
    list(fit(network, train, val, params))
    return judge(network, predict_logits(network, val, CPU), val, test, params)


def draw_curves(table: pd.DataFrame, path: Path) -> None:
    """Plot micro F1 (solid) and macro F1 (dashed) over the number of photos for each curve."""
    figure, axes = new_figure("F1 by number of labelled photos", "labelled photos", "F1 on test")
    for number, (curve, rows) in enumerate(table.groupby("curve", sort=False)):
        for metric, style in (("f1_micro", "-"), ("f1_macro", "--")):
            means = rows.groupby("photos")[metric].mean()
            color = (BLUE, ORANGE, GREEN)[number % 3]
            name = f"{curve}, {metric.removeprefix('f1_')}"
            axes.plot(means.index, means, style, color=color, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xticks(sorted(table["photos"].unique()))
    axes.set_xticklabels(f"{count:,}".replace(",", " ") for count in sorted(set(table["photos"])))
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Train all models, print one row per model, and write the table and the figure."""
    if len(sys.argv) < 3 or sys.argv[1].isdecimal():
        sys.exit(__doc__)
    curve, counts = sys.argv[1], [*map(int, sys.argv[2:])]
    names = ("images.npy", "manifest.csv", "splits.csv")
    parts = read_datasets(*(Path("data", name) for name in names))
    photos = join_datasets(list(parts.values()))
    learn, model = train_network, read_all_params().model
    if model.pretrained and not model.frozen:
        sys.exit(
            "model.freeze is false: this benchmark does not fine-tune: set model.freeze to true"
        )
    if model.frozen:
        photos = replace(photos, images=np.load("data/features.npy", mmap_mode="r"))
        learn = solve_on_features
    rows = []
    for count in counts:
        for seed in SEEDS:
            side = split_groups(photos.targets, list(photos.groups), (0.9, 0.1), seed)
            rest = np.random.default_rng(seed).permutation(np.flatnonzero(side == 0))[:count]
            test = take_photos(photos, np.flatnonzero(side == 1))
            found = dict(zip(SCORES, learn(take_photos(photos, rest), test, seed), strict=True))
            rows.append({"curve": curve, "photos": count, "seed": seed} | found)
            print(rows[-1], flush=True)
    table, path = pd.DataFrame(rows), RESULTS / "learning_curve.csv"
    if path.exists():
        known = pd.read_csv(path)
        table = pd.concat([known[known["curve"] != curve], table], ignore_index=True)
    write_table(path, table)
    with figure_style():
        draw_curves(table, path.with_suffix(".png"))
    print(table.groupby(["curve", "photos"], sort=False)[list(SCORES)].mean().round(3))


if __name__ == "__main__":
    main()
