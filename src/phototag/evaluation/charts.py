"""Figures of an evaluation.

Figures show the most frequent labels only and state how many; the tables contain all. Targets are
1, 0 or `UNKNOWN`, and unknown entries are not drawn.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from phototag.dataset.targets import is_known
from phototag.evaluation.calibration import tabulate_reliability
from phototag.evaluation.tables import MAX_LABELS, sort_labels, take_frequent
from phototag.evaluation.thresholds import Thresholds
from phototag.metrics.classification import f1_from_counts
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

MAX_PANELS = 24  # labels of figures with one panel per label
MAX_POINTS = 1000  # points of a curve
GRID = np.linspace(0, 1, 101)  # thresholds at which F1 is drawn


def draw_loss(history: pd.DataFrame, baseline: float) -> Figure:
    """Draw train and val loss by epoch, or by step of a linear probe.

    Args:
        history: Content of history.csv, one row per epoch or step.
        baseline: Loss of the constant baseline on val.
    """
    curves = {"train": "train_loss", "val": "val_loss"}
    figure, axes = _draw_history(history, curves, "Loss", "mean binary cross entropy (nats)")
    axes.axhline(baseline, color=GREY, linestyle=":", label="baseline (label frequencies)")
    axes.legend()
    return figure


def draw_f1(history: pd.DataFrame) -> Figure:
    """Draw micro and macro F1 on val, at threshold 0.5, by epoch or step."""
    curves = {"micro": "f1_micro", "macro": "f1_macro"}
    figure, axes = _draw_history(history, curves, "F1 on val at threshold 0.5", "F1")
    axes.set_ylim(0, 1)
    axes.legend()
    return figure


def _draw_history(
    history: pd.DataFrame, curves: dict[str, str], title: str, ylabel: str
) -> tuple[Figure, Axes]:
    """Draw two columns of history.csv, given by name of the curve, and mark the best epoch."""
    x = "epoch" if "epoch" in history else "step"
    figure, axes = new_figure(title, x, ylabel)
    for (name, column), color in zip(curves.items(), (BLUE, ORANGE), strict=True):
        axes.plot(history[x], history[column], color=color, label=name)
    best = step_number(best_record(history.to_dict("records")))
    axes.axvline(best, color=GREEN, linestyle="--", linewidth=1, label=f"best {x}: {best}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def draw_per_label(per_label: pd.DataFrame) -> Figure:
    """Draw F1, precision and recall of each label, by descending F1."""
    selection = _describe_selection(len(per_label), MAX_LABELS)
    table = take_frequent(per_label, MAX_LABELS).sort_values("f1", kind="stable")
    figure, axes = new_figure(f"Scores of each label{selection}", "score", "")
    figure.set_size_inches(6.4, 1.2 + 0.3 * len(table))
    rows = np.arange(len(table))
    axes.barh(rows, table["f1"], color=BLUE, alpha=0.35, label="F1")
    axes.hlines(rows, table["f1_low"], table["f1_high"], color=BLUE, label="95% interval of F1")
    axes.plot(table["precision"], rows, "o", color=ORANGE, label="precision")
    axes.plot(table["recall"], rows, "D", color=GREEN, label="recall")
    names = [f"{shorten_name(str(row.label))} ({row.support})" for row in table.itertuples()]
    axes.set_yticks(rows, names)
    axes.set_ylabel("label (positives)")
    axes.set_xlim(0, 1.02)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def draw_pr_curves(targets: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Draw the precision-recall curves of all entries pooled and of each label."""
    figure, axes = new_figure("Precision-recall curves", "recall", "precision")
    known = is_known(targets)
    present = [label for label in sort_labels(targets) if (targets[:, label] > 0).any()]
    for label in present[:MAX_LABELS]:
        chosen = known[:, label]
        curve = _precision_recall(targets[chosen, label], probabilities[chosen, label])
        axes.plot(*curve, color=GREY, alpha=0.35, linewidth=0.8)
    if present:
        curve = _precision_recall(targets[known], probabilities[known])
        axes.plot(*curve, color=BLUE, linewidth=2, label="all labels pooled (micro)")
    positives = targets[known].mean()
    axes.axhline(positives, color=GREY, linestyle=":", label="share of positives (chance level)")
    name = f"each label{_describe_selection(len(present), MAX_LABELS)}"
    axes.plot([], [], color=GREY, alpha=0.6, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _precision_recall(
    targets: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision of at most `MAX_POINTS` points, including the last one."""
    precision, recall, _ = precision_recall_curve(targets, probabilities)
    step = -(-len(recall) // MAX_POINTS)
    return recall[::-1][::step][::-1], precision[::-1][::step][::-1]


def draw_threshold_curves(
    labels: Sequence[str],
    val: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    thresholds: Thresholds,
) -> Figure:
    """Draw the F1 of each label as a function of its threshold, on val and on test.

    Args:
        labels: Names.
        val: Targets and probabilities of val, [num_photos, num_labels] each.
        test: Targets and probabilities of test, or None if there is no test split.
        thresholds: Decision thresholds.
    """
    figure, panels = _new_panels("F1 by threshold", labels, val[0], "threshold", "F1")
    curves = [("val", BLUE, val), ("test", ORANGE, test)]
    for axes, label in panels:
        for name, color, given in curves:
            if given:
                f1 = _f1_by_threshold(given[0][:, label], given[1][:, label])
                axes.plot(GRID, f1, color=color, linewidth=1.2, label=name)
        low, high = thresholds.low[label], thresholds.high[label]
        axes.axvspan(low, high, color=GREEN, alpha=0.2, label="95% interval of the threshold")
        axes.axvline(thresholds.values[label], color=GREEN, label="chosen threshold")
    _add_shared_legend(figure)
    return figure


def _f1_by_threshold(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the F1 of one label at the thresholds of `GRID`."""
    positive, negative = (np.sort(probabilities[targets == value]) for value in (1, 0))
    true_positives = len(positive) - np.searchsorted(positive, GRID)
    false_positives = len(negative) - np.searchsorted(negative, GRID)
    return f1_from_counts(true_positives, true_positives + false_positives + len(positive))


def draw_score_distributions(
    labels: Sequence[str],
    targets: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
) -> Figure:
    """Draw histograms of the probabilities of photos with and without each label."""
    title = "Predicted probabilities of photos with and without the label"
    figure, panels = _new_panels(title, labels, targets, "probability", "share of photos")
    bins = np.linspace(0, 1, 21).tolist()
    for axes, label in panels:
        for value, color, name in ((0, GREY, "without the label"), (1, BLUE, "with the label")):
            chosen = probabilities[targets[:, label] == value, label]
            share = np.full(len(chosen), 1 / max(len(chosen), 1))
            axes.hist(chosen, bins, weights=share, color=color, alpha=0.55, label=name)
        axes.axvline(thresholds[label], color=GREEN, label="threshold")
    _add_shared_legend(figure)
    return figure


def draw_cooccurrence(labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray) -> Figure:
    """Draw how often a photo with one label has another label, in the targets and as predicted.

    Each pair of labels is counted on the photos for which both are known.
    """
    shown = np.sort(sort_labels(targets)[:MAX_LABELS])
    names = [shorten_name(labels[label]) for label in shown]
    figure = Figure(figsize=(7 + 0.3 * len(shown), 2.2 + 0.22 * len(shown)), layout="constrained")
    figure.suptitle(
        "Share of the photos with the label of the row that have the label of the column, in %"
        f"{_describe_selection(len(labels), MAX_LABELS)}"
    )
    panels = figure.subplots(1, 2, sharey=True)
    known = is_known(targets[:, shown])
    parts = (("true labels", targets), ("predicted labels", predicted))
    for axes, (name, values) in zip(panels, parts, strict=True):
        chosen = ((values[:, shown] > 0) & known).astype(float)
        share = chosen.T @ chosen / np.maximum(chosen.T @ known, 1)
        np.fill_diagonal(share, np.nan)
        axes.imshow(share, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.005:
                color = "black" if value > 0.6 else "white"
                text = f"{100 * value:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
        axes.set(title=name)
        axes.set_xticks(range(len(shown)), names, rotation=90)
        axes.set_yticks(range(len(shown)), names)
        axes.grid(False)
    return figure


def draw_calibration(
    targets: np.ndarray, curves: dict[str, np.ndarray], per_label: pd.DataFrame
) -> Figure:
    """Draw the reliability diagram of all labels pooled, and the calibration error of each label.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        curves: Name of a curve -> probabilities (0..1) of the same shape. At most two curves.
        per_label: Table with the columns `label`, `support` and `calibration_error`.
    """
    table = take_frequent(per_label, MAX_LABELS)
    figure = Figure(figsize=(9.5, 0.5 + max(3.5, 0.26 * len(table))), layout="constrained")
    curve, bars = figure.subplots(1, 2)
    curve.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
    styles = [(BLUE, "o-"), (ORANGE, "D--")][: len(curves)]
    for (name, values), (color, style) in zip(curves.items(), styles, strict=True):
        bins = tabulate_reliability(targets.ravel(), values.ravel())
        curve.plot(bins["predicted"], bins["observed"], style, color=color, label=name)
    curve.set(
        title="Reliability diagram, all labels pooled",
        xlabel="predicted probability",
        ylabel="observed frequency",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    curve.legend(loc="best", frameon=True)
    table = table.sort_values("calibration_error", ascending=False, kind="stable")
    rows = np.arange(len(table))
    bars.barh(rows, table["calibration_error"], color=BLUE, alpha=0.6)
    bars.set_yticks(rows, [shorten_name(label) for label in table["label"]])
    title = f"Calibration error of each label{_describe_selection(len(per_label), MAX_LABELS)}"
    bars.set(title=title, xlabel="expected calibration error")
    bars.locator_params(axis="x", nbins=5)
    return figure


def draw_slices(slices: pd.DataFrame) -> Figure:
    """Draw the micro F1 of each group of photos with its confidence interval."""
    figure, axes = new_figure("Micro F1 by slice", "micro F1, 95% confidence interval", "")
    figure.set_size_inches(6.4, 1.2 + 0.3 * len(slices))
    rows = np.arange(len(slices))[::-1]
    axes.hlines(rows, slices["f1_micro_low"], slices["f1_micro_high"], color=BLUE)
    axes.plot(slices["f1_micro"], rows, "o", color=BLUE)
    names = [f"{row.slice}: {row.group} ({row.photos})" for row in slices.itertuples()]
    axes.set_yticks(rows, names)
    axes.set_ylabel("slice (photos)")
    first = ~slices["slice"].duplicated()
    for row in rows[first][1:]:
        axes.axhline(row + 0.5, color=GREY, linewidth=0.6)
    axes.set_xlim(0, 1.02)
    return figure


def _new_panels(
    title: str, labels: Sequence[str], targets: np.ndarray, xlabel: str, ylabel: str
) -> tuple[Figure, Iterator[tuple[Axes, int]]]:
    """Return a figure with one panel per label, and the panels with the labels' positions.

    Both axes of a panel go from 0 to 1.
    """
    support = (targets > 0).sum(axis=0)
    shown = np.sort(sort_labels(targets)[:MAX_PANELS])
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.4 * columns, 0.9 + 1.7 * rows), layout="constrained")
    figure.suptitle(f"{title}{_describe_selection(len(labels), MAX_PANELS)}")
    figure.supylabel(ylabel)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes in grid[max(len(shown) - columns, 0) : len(shown)]:
        axes.tick_params(labelbottom=True)  # the lowest panel of its column
        axes.set_xlabel(xlabel)
    for axes, label in zip(grid, shown, strict=False):
        axes.set_title(f"{shorten_name(labels[label])} ({support[label]})", fontsize=10)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    return figure, zip(grid, shown, strict=False)


def _add_shared_legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def _describe_selection(number: int, shown: int) -> str:
    return f" (the {shown} most frequent of {number})" if number > shown else ""
