"""The report a person reads: figures and one self-contained HTML page."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from phototag.dataset import Dataset
from phototag.evaluation import sigmoid
from phototag.figures import BLUE, GREEN, GREY, ORANGE, STYLE, new_figure, save_figure
from phototag.metrics import prior_loss
from phototag.pages import write_page


def write_report(
    page: Path,
    figures_folder: Path,
    split: str,
    scores: Mapping[str, float],
    per_label: pd.DataFrame,
    history: pd.DataFrame,
    judged: Dataset,
    logits: np.ndarray,
) -> None:
    """Draw the figures and write one HTML page, which embeds them.

    Args:
        page: The HTML file.
        figures_folder: Where the figures go as PNG files too.
        split: Which split was judged: test or val.
        scores: Of `evaluation.score`.
        per_label: Of `evaluation.tabulate_labels`.
        history: One row an epoch.
        judged: The judged photos.
        logits: Their logits, float [num_photos, num_labels].
    """
    with mpl.rc_context(STYLE):
        figures = {
            "loss": draw_loss(history, prior_loss(judged.targets)),
            "f1": draw_f1(history),
            "per_label": draw_per_label(per_label),
            "pr_curves": draw_pr_curves(judged, logits),
        }
        embedded = {
            name: save_figure(figure, figures_folder / f"{name}.png")
            for name, figure in figures.items()
        }
    write_page(
        page,
        "report.html.j2",
        title="How good is the model?",
        headline=summarize(split, scores, per_label, history, judged),
        split=split,
        scores=scores,
        labels=per_label.to_dict("records"),
        figures=embedded,
    )


def summarize(
    split: str,
    scores: Mapping[str, float],
    per_label: pd.DataFrame,
    history: pd.DataFrame,
    judged: Dataset,
) -> list[str]:
    """Say in three sentences, made from the numbers, how good the model is."""
    prior = prior_loss(judged.targets)
    best = history.iloc[int(history["val_loss"].argmin())]
    known = per_label[per_label["support"] > 0].sort_values("f1")
    worst, finest = known.head(3)["label"], known.tail(3)["label"][::-1]
    return [
        f"On {len(judged)} {split} photos the model reaches micro F1 {scores['f1_micro']:.3f} and "
        f"macro F1 {scores['f1_macro']:.3f} at its chosen thresholds "
        f"({scores['f1_micro_at_0.5']:.3f} and {scores['f1_macro_at_0.5']:.3f} at 0.5).",
        f"Its loss there is {scores['loss']:.4f}; always predicting each label's frequency would "
        f"give {prior:.4f}. The weights are those of epoch {best['epoch']:.0f} of {len(history)}.",
        f"It does best on {', '.join(finest)} and worst on {', '.join(worst)}.",
    ]


def draw_loss(history: pd.DataFrame, prior: float) -> Figure:
    """Draw training and validation loss over epochs, with the loss of the prior."""
    figure, axes = new_figure("Loss", "epoch", "mean binary cross entropy (nats)")
    axes.plot(history["epoch"], history["train_loss"], color=BLUE, label="train")
    axes.plot(history["epoch"], history["val_loss"], color=ORANGE, label="val")
    axes.axhline(prior, color=GREY, linestyle=":", label="always the prior")
    axes.legend()
    return figure


def draw_f1(history: pd.DataFrame) -> Figure:
    """Draw micro and macro F1 on val at 0.5 over epochs."""
    figure, axes = new_figure("F1 on val at threshold 0.5", "epoch", "F1")
    axes.plot(history["epoch"], history["f1_micro"], color=BLUE, label="micro")
    axes.plot(history["epoch"], history["f1_macro"], color=ORANGE, label="macro")
    axes.set_ylim(0, 1)
    axes.legend()
    return figure


def draw_per_label(per_label: pd.DataFrame) -> Figure:
    """Draw precision, recall and F1 of each label at its threshold, the best label on top."""
    table = per_label.sort_values("f1")
    figure, axes = new_figure("Each label at its threshold", "score", "")
    figure.set_size_inches(6.4, 1.2 + 0.3 * len(table))
    place = np.arange(len(table))
    axes.barh(place, table["f1"], color=BLUE, alpha=0.35, label="F1")
    axes.plot(table["precision"], place, "o", color=ORANGE, label="precision")
    axes.plot(table["recall"], place, "D", color=GREEN, label="recall")
    names = [f"{row.label} ({row.support})" for row in table.itertuples()]
    axes.set_yticks(place, names)
    axes.set_xlim(0, 1.02)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14 - 0.5 / len(table)), ncols=3)
    return figure


def draw_pr_curves(judged: Dataset, logits: np.ndarray) -> Figure:
    """Draw the precision-recall curve of all decisions pooled and, faint, of every label."""
    figure, axes = new_figure("Precision against recall", "recall", "precision")
    probabilities = sigmoid(logits)
    for label in np.flatnonzero(judged.targets.any(axis=0)):
        precision, recall, _ = precision_recall_curve(
            judged.targets[:, label], probabilities[:, label]
        )
        axes.plot(recall, precision, color=GREY, alpha=0.35, linewidth=0.8)
    precision, recall, _ = precision_recall_curve(judged.targets.ravel(), probabilities.ravel())
    axes.plot(recall, precision, color=BLUE, linewidth=2, label="all labels pooled (micro)")
    axes.plot([], [], color=GREY, alpha=0.6, label="each label")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower left", frameon=True)
    return figure
