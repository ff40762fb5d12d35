"""The figures of an evaluation.

Of many labels, a figure shows the most frequent ones and says so; the tables have all. Targets are
1, 0 or `UNKNOWN`, and figures are of those that are known.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from phototag.dataset.targets import is_known
from phototag.evaluation.calibration import tabulate_reliability
from phototag.evaluation.tables import sort_labels, take_frequent
from phototag.evaluation.thresholds import Thresholds
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

PANELS = 24  # labels of a figure with one panel a label
SHOWN = 40  # labels of any other figure
POINTS = 1000  # of a curve
GRID = np.linspace(0, 1, 101)


def draw_loss(history: pd.DataFrame, prior: float) -> Figure:
    """Draw training and validation loss over epochs, with the loss of the prior on val."""
    x = "epoch" if "epoch" in history else "step"
    figure, axes = new_figure("Loss", x, "mean binary cross entropy (nats)")
    axes.plot(history[x], history["train_loss"], color=BLUE, label="train")
    axes.plot(history[x], history["val_loss"], color=ORANGE, label="val")
    axes.axhline(prior, color=GREY, linestyle=":", label="always the prior")
    _mark_best(axes, history)
    axes.legend()
    return figure


def draw_f1(history: pd.DataFrame) -> Figure:
    """Draw micro and macro F1 on val at 0.5 over epochs."""
    x = "epoch" if "epoch" in history else "step"
    figure, axes = new_figure("F1 on val at threshold 0.5", x, "F1")
    axes.plot(history[x], history["f1_micro"], color=BLUE, label="micro")
    axes.plot(history[x], history["f1_macro"], color=ORANGE, label="macro")
    axes.set_ylim(0, 1)
    _mark_best(axes, history)
    axes.legend()
    return figure


def _mark_best(axes: Axes, history: pd.DataFrame) -> None:
    best = step_number(best_record(history.to_dict("records")))
    x = "epoch" if "epoch" in history else "step"
    axes.axvline(best, color=GREEN, linestyle="--", linewidth=1, label=f"best {x}: {best}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_per_label(per_label: pd.DataFrame) -> Figure:
    """Draw F1 of each label with its interval, precision and recall, the best label on top."""
    title = f"Each label at its threshold{_tell_shown(len(per_label), SHOWN)}"
    table = take_frequent(per_label, SHOWN).sort_values("f1", kind="stable")
    figure, axes = new_figure(title, "score", "")
    figure.set_size_inches(6.4, 1.2 + 0.3 * len(table))
    place = np.arange(len(table))
    axes.barh(place, table["f1"], color=BLUE, alpha=0.35, label="F1")
    axes.hlines(place, table["f1_low"], table["f1_high"], color=BLUE, label="its 95% interval")
    axes.plot(table["precision"], place, "o", color=ORANGE, label="precision")
    axes.plot(table["recall"], place, "D", color=GREEN, label="recall")
    names = [f"{shorten_name(str(row.label))} ({row.support})" for row in table.itertuples()]
    axes.set_yticks(place, names)
    axes.set_xlim(0, 1.02)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def draw_pr_curves(targets: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Draw the precision-recall curve of all decisions pooled and, faint, of every label."""
    figure, axes = new_figure("Precision against recall", "recall", "precision")
    known = is_known(targets)
    there = [label for label in sort_labels(targets) if (targets[:, label] > 0).any()]
    for label in there[:SHOWN]:
        chosen = known[:, label]
        curve = _thin_curve(targets[chosen, label], probabilities[chosen, label])
        axes.plot(*curve, color=GREY, alpha=0.35, linewidth=0.8)
    if there:
        curve = _thin_curve(targets[known], probabilities[known])
        axes.plot(*curve, color=BLUE, linewidth=2, label="all labels pooled (micro)")
    axes.axhline(targets[known].mean(), color=GREY, linestyle=":", label="guessing, pooled")
    axes.plot([], [], color=GREY, alpha=0.6, label=f"each label{_tell_shown(len(there), SHOWN)}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="best", frameon=True)
    return figure


def _thin_curve(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision, at most `POINTS` of each and the last one among them."""
    precision, recall, _ = precision_recall_curve(targets, probabilities)
    step = -(-len(recall) // POINTS)
    return recall[::-1][::step][::-1], precision[::-1][::step][::-1]


def draw_threshold_curves(
    labels: Sequence[str],
    val: tuple[np.ndarray, np.ndarray],
    judged: tuple[np.ndarray, np.ndarray] | None,
    thresholds: Thresholds,
) -> Figure:
    """Draw each label's F1 over thresholds, on val and on test, with the one chosen.

    Args:
        labels: Names.
        val: Targets and probabilities, [num_photos, num_labels] each.
        judged: The same of test, where there is a test split.
        thresholds: With their spread.
    """
    figure, panels = _new_panels(
        "F1 over thresholds; the line is the chosen one, the band its 95% spread",
        labels,
        val[0],
        "threshold",
        "F1",
    )
    curves = [("val", BLUE, val), ("test", ORANGE, judged)]
    for axes, label in panels:
        for name, color, given in curves:
            if given:
                f1 = _f1_curve(given[0][:, label], given[1][:, label])
                axes.plot(GRID, f1, color=color, linewidth=1.2, label=name)
        axes.axvspan(thresholds.low[label], thresholds.high[label], color=GREEN, alpha=0.2)
        axes.axvline(thresholds.values[label], color=GREEN, label="chosen")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    _share_legend(figure)
    return figure


def _f1_curve(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    positive, negative = (np.sort(probabilities[targets == value]) for value in (1, 0))
    right = len(positive) - np.searchsorted(positive, GRID)
    wrong = len(negative) - np.searchsorted(negative, GRID)
    return np.asarray(2 * right / np.maximum(right + wrong + len(positive), 1))


def draw_score_distributions(
    labels: Sequence[str],
    targets: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
) -> Figure:
    """Draw how the probabilities of photos with and without each label are spread."""
    figure, panels = _new_panels(
        "Probabilities of photos with and without the label",
        labels,
        targets,
        "probability",
        "share of these photos",
    )
    bins = np.linspace(0, 1, 21).tolist()
    for axes, label in panels:
        for value, color, name in ((0, GREY, "without"), (1, BLUE, "with the label")):
            chosen = probabilities[targets[:, label] == value, label]
            share = np.full(len(chosen), 1 / max(len(chosen), 1))
            axes.hist(chosen, bins, weights=share, color=color, alpha=0.55, label=name)
        axes.axvline(thresholds[label], color=GREEN, label="threshold")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    _share_legend(figure)
    return figure


def draw_cooccurrence(labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray) -> Figure:
    """Draw how often a photo with one label carries another: in truth, and as predicted.

    Both are of photos for which both labels are known.
    """
    shown = np.sort(sort_labels(targets)[:SHOWN])
    names = [shorten_name(labels[label]) for label in shown]
    figure = Figure(figsize=(7 + 0.3 * len(shown), 2.2 + 0.22 * len(shown)), layout="constrained")
    figure.suptitle(
        "Of the photos with the label on the left, the share with the one below, in %"
        f"{_tell_shown(len(labels), SHOWN)}"
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
    targets: np.ndarray, logits_to_probabilities: dict[str, np.ndarray], per_label: pd.DataFrame
) -> Figure:
    """Draw observed over predicted frequency, all labels pooled, and each label's error.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].
        logits_to_probabilities: Name of the curve -> probabilities, the model's own first.
        per_label: With label and calibration_error.
    """
    table = take_frequent(per_label, SHOWN)
    figure = Figure(figsize=(9.5, 0.5 + max(3.5, 0.26 * len(table))), layout="constrained")
    curve, bars = figure.subplots(1, 2)
    curve.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as it should be")
    styles = zip((BLUE, ORANGE), ("o-", "D--"), strict=True)
    for (name, values), (color, style) in zip(
        logits_to_probabilities.items(), styles, strict=False
    ):
        bins = tabulate_reliability(targets.ravel(), values.ravel())
        curve.plot(bins["predicted"], bins["observed"], style, color=color, label=name)
    curve.set(
        title="Reliability, all labels pooled",
        xlabel="predicted probability",
        ylabel="observed share of positives",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    curve.legend(loc="upper left")
    table = table.sort_values("calibration_error", ascending=False, kind="stable")
    place = np.arange(len(table))
    bars.barh(place, table["calibration_error"], color=BLUE, alpha=0.6)
    bars.set_yticks(place, [shorten_name(label) for label in table["label"]])
    title = f"Expected calibration error{_tell_shown(len(per_label), SHOWN)}"
    bars.set(title=title, xlabel="mean gap, 0 to 1")
    return figure


def draw_slices(slices: pd.DataFrame) -> Figure:
    """Draw micro F1 of each group of photos, with its interval."""
    figure, axes = new_figure("Groups of photos", "micro F1, with 95% interval", "")
    figure.set_size_inches(6.4, 1.2 + 0.3 * len(slices))
    place = np.arange(len(slices))[::-1]
    axes.hlines(place, slices["f1_micro_low"], slices["f1_micro_high"], color=BLUE)
    axes.plot(slices["f1_micro"], place, "o", color=BLUE)
    axes.set_yticks(
        place, [f"{row.slice}: {row.group} ({row.photos})" for row in slices.itertuples()]
    )
    first = ~slices["slice"].duplicated()
    for line in place[first][1:]:
        axes.axhline(line + 0.5, color=GREY, linewidth=0.6)
    axes.set_xlim(0, 1.02)
    return figure


def _new_panels(
    title: str, labels: Sequence[str], targets: np.ndarray, xlabel: str, ylabel: str
) -> tuple[Figure, Iterator[tuple[Axes, int]]]:
    """Return a figure of one panel a label, and the panels with their labels' positions."""
    support = (targets > 0).sum(axis=0)
    shown = np.sort(sort_labels(targets)[:PANELS])
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.4 * columns, 0.9 + 1.7 * rows), layout="constrained")
    figure.suptitle(f"{title}{_tell_shown(len(labels), PANELS)}")
    figure.supylabel(ylabel)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes in grid[max(len(shown) - columns, 0) : len(shown)]:
        axes.tick_params(labelbottom=True)  # the lowest of its column
        axes.set_xlabel(xlabel)
    for axes, label in zip(grid, shown, strict=False):
        axes.set_title(f"{shorten_name(labels[label])} ({support[label]})", fontsize=10)
    return figure, zip(grid, shown, strict=False)


def _share_legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def _tell_shown(number: int, shown: int) -> str:
    return f" (the {shown} most frequent of {number})" if number > shown else ""
