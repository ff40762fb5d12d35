"""Figures of the evaluation report."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from phototag.evaluation.calibration import tabulate_reliability
from phototag.evaluation.tables import sort_labels
from phototag.metrics.classification import MIN_POSITIVES
from phototag.metrics.selection import best_record, step_number
from phototag.pages.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Axes,
    Figure,
    MaxNLocator,
    new_figure,
    shorten_name,
)

MAX_PANELS = 24  # largest number of panels in the figure that has one panel per label


def draw_loss(history: pd.DataFrame, chosen_on: str, baseline: float) -> Figure:
    """Draw the train and val loss by epoch or linear probe step, and mark the best epoch or step.

    Args:
        history: Content of history.csv, one row per epoch or step.
        chosen_on: Description of the photos on which the column `val_loss` was computed.
        baseline: Loss of the constant baseline on these photos, in nats.
    """
    x = "epoch" if "epoch" in history else "step"
    figure, axes = new_figure("Loss", x, "mean binary cross entropy (nats)")
    axes.plot(history[x], history["train_loss"], color=BLUE, label="train")
    axes.plot(history[x], history["val_loss"], color=ORANGE, label=chosen_on)
    best = step_number(best_record(history.to_dict("records")))
    axes.axvline(best, color=GREEN, linestyle="--", linewidth=1, label=f"best {x}: {best}")
    axes.axhline(baseline, color=GREY, linestyle=":", label="baseline (label frequencies)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def draw_pr_curve(curve: pd.DataFrame, positives: float) -> Figure:
    """Draw the precision-recall curve of all labels pooled.

    Args:
        curve: Table returned by `tabulate_curve`.
        positives: Share of positives, 0..1, drawn as the expected precision of random predictions.
    """
    figure, axes = new_figure("Precision-recall curve", "recall", "precision")
    axes.plot(curve["recall"], curve["precision"], color=BLUE, label="all labels pooled (micro)")
    axes.axhline(positives, color=GREY, linestyle=":", label="share of positives (chance level)")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
    return figure


def draw_reliability(targets: np.ndarray, curves: dict[str, np.ndarray]) -> Figure:
    """Draw the reliability diagram of all labels pooled.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        curves: Dictionary from the names of two curves to probabilities (0..1), of the same shape.
    """
    title = "Reliability diagram, all labels pooled"
    figure, axes = new_figure(title, "predicted probability", "observed frequency")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
    styles = ((BLUE, "o-"), (ORANGE, "D--"))
    for (name, values), (color, style) in zip(curves.items(), styles, strict=True):
        bins = tabulate_reliability(targets.ravel(), values.ravel())
        axes.plot(bins["predicted"], bins["observed"], style, color=color, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="best", frameon=True)
    return figure


def draw_score_distributions(
    labels: Sequence[str],
    targets: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
) -> Figure:
    """Draw one panel per label, with histograms of the probabilities predicted for this label.

    Photos with and without the label have separate histograms; labels with fewer positives than
    `MIN_POSITIVES` have none. The figure shows the `MAX_PANELS` most frequent labels. Unknown
    entries are ignored.

    Args:
        labels: Names of the labels.
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        probabilities: Probabilities (0..1), of the same shape.
        thresholds: Thresholds (0..1), [num_labels].
    """
    support = (targets > 0).sum(axis=0)
    shown = np.sort(sort_labels(targets)[:MAX_PANELS])
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.4 * columns, 0.9 + 1.7 * rows), layout="constrained")
    title = "Predicted probabilities of photos with and without the label"
    if len(labels) > len(shown):
        title += f" (the {len(shown)} most frequent of {len(labels)})"
    figure.suptitle(title)
    figure.supylabel("share of photos")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes, label in zip(grid, shown, strict=False):
        if support[label] >= MIN_POSITIVES:
            _draw_histograms(axes, targets[:, label], probabilities[:, label])
        else:
            axes.text(0.5, 0.5, "too few to judge", ha="center", color=GREY)
        axes.axvline(thresholds[label], color=GREEN, label="threshold")
        axes.set_title(f"{shorten_name(labels[label])} ({support[label]})", fontsize=10)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    # A panel of a rare label has no entries for histograms: use the panel with the most entries.
    legends = (axes.get_legend_handles_labels() for axes in grid)
    handles, names = max(legends, key=lambda legend: len(legend[1]))
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _draw_histograms(axes: Axes, targets: np.ndarray, probabilities: np.ndarray) -> None:
    """Draw two histograms of one label: one for photos without it and one for photos with it."""
    for value, color, name in ((0, GREY, "without the label"), (1, BLUE, "with the label")):
        counts, edges = np.histogram(probabilities[targets == value], 20, (0, 1))
        # One filled outline is drawn faster than one rectangle per bin.
        share = counts / max(counts.sum(), 1)
        axes.stairs(share, edges, fill=True, color=color, alpha=0.55, label=name)
