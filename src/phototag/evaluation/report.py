"""The report a person reads: figures, tables and galleries on one self-contained HTML page."""

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phototag.dataset.targets import is_known, label_rates
from phototag.evaluation import charts
from phototag.evaluation.galleries import Example
from phototag.evaluation.result import Evaluation
from phototag.evaluation.tables import take_frequent
from phototag.metrics.losses import baseline_loss, sigmoid
from phototag.pages.figures import figure_style, save_figure
from phototag.pages.html import write_page

# What each figure shows, for readers who cannot see it.
CAPTIONS = {
    "loss": "Training and validation loss over epochs",
    "f1": "F1 on val over epochs",
    "per_label": "F1, precision and recall of each label",
    "pr_curves": "Precision against recall",
    "slices": "Micro F1 of groups of photos",
    "threshold_curves": "F1 of each label over thresholds",
    "score_distributions": "Probabilities of photos with and without each label",
    "calibration": "Predicted against observed frequency",
    "cooccurrence": "Labels that stand together, in truth and as predicted",
}
VAGUE = 0.2  # width of an interval from which on it is worth a warning
ROWS = 100  # of the table of labels
WIDE = ("threshold_curves", "score_distributions", "calibration", "cooccurrence")


def draw_figures(result: Evaluation, history: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draw all figures and write them as PNG files.

    Args:
        result: The evaluation.
        history: One row an epoch.
        folder: Where they go.

    Returns:
        Name, of `CAPTIONS` -> the figure as a data URI; slices only where there are any.
    """
    train, val, judged = (result.datasets[name] for name in ("train", "val", result.split))
    tables, cuts = result.tables, result.thresholds
    logits = result.logits[result.split]
    probabilities = sigmoid(logits)
    on_test = (judged.targets, probabilities) if result.split == "test" else None
    # The model's own curve first; applied or not, the temperature divides once.
    if result.applied == 1:
        reliability = {"the model": probabilities, "fitted": sigmoid(logits / result.temperature)}
    else:
        reliability = {"fitted": probabilities, "not fitted": sigmoid(logits * result.applied)}
    with figure_style():
        figures = {
            "loss": charts.draw_loss(
                history, baseline_loss(label_rates(train.targets), val.targets)
            ),
            "f1": charts.draw_f1(history),
            "per_label": charts.draw_per_label(tables["per_label"]),
            "pr_curves": charts.draw_pr_curves(judged.targets, probabilities),
            "threshold_curves": charts.draw_threshold_curves(
                val.labels, (val.targets, sigmoid(result.logits["val"])), on_test, cuts
            ),
            "score_distributions": charts.draw_score_distributions(
                judged.labels, judged.targets, probabilities, cuts.values
            ),
            "calibration": charts.draw_calibration(
                judged.targets,
                reliability,
                tables["per_label"],
            ),
            "cooccurrence": charts.draw_cooccurrence(
                judged.labels, judged.targets, probabilities >= cuts.values
            ),
        }
        if len(tables["slices"]):
            figures["slices"] = charts.draw_slices(tables["slices"])
        return {
            name: save_figure(figures[name], folder / f"{name}.png")
            for name in CAPTIONS
            if name in figures
        }


def write_report(
    page: Path,
    result: Evaluation,
    figures: Mapping[str, str],
    galleries: Mapping[str, Mapping[str, list[Example]]],
    origin: str = "",
) -> None:
    """Write one HTML page that needs no other file.

    Args:
        page: The HTML file.
        result: The evaluation.
        figures: Of `draw_figures`.
        galleries: Of `galleries.build_galleries`.
        origin: Of `weights.describe_origin`: what the model was trained on.
    """
    scores, per_label, slices = (result.tables[name] for name in ("scores", "per_label", "slices"))
    judged = result.datasets[result.split]
    known, entries = np.count_nonzero(is_known(judged.targets)), judged.targets.size
    partly = "" if judged.complete else f"{known} of {entries} entries"
    photos = f"{len(judged)} {result.split} photos{f' ({partly} are known)' if partly else ''}"
    write_page(
        page,
        "phototag.evaluation",
        "report.html.j2",
        title="How good is the model?",
        headline=[
            *summarize(photos, scores, per_label, slices),
            *([origin] if origin else []),
        ],
        split=result.split,
        partly=partly,
        predictors=list(dict.fromkeys(scores["predictor"])),
        metrics=list(dict.fromkeys(scores["metric"])),
        cells=scores.set_index(["metric", "predictor"]).to_dict("index"),
        labels=take_frequent(per_label, ROWS).to_dict("records"),
        num_labels=len(per_label),
        slices=slices.to_dict("records"),
        temperature=result.temperature,
        chosen_on=result.chosen_on,
        calibrated=result.applied != 1,
        num_label_errors=len(result.tables["label_errors"]),
        figures={name: (image, CAPTIONS[name], name in WIDE) for name, image in figures.items()},
        galleries=galleries,
        located=all(
            example.heat
            for kinds in galleries.values()
            for examples in kinds.values()
            for example in examples
        ),
    )


def summarize(
    photos: str, scores: pd.DataFrame, per_label: pd.DataFrame, slices: pd.DataFrame
) -> list[str]:
    """Say in three sentences, made from the numbers, what the model does well and badly.

    Args:
        photos: What was judged, such as "400 test photos".
        scores: Of `evaluation.tabulate_scores`.
        per_label: Of `evaluation.tabulate_labels`.
        slices: Of `slices.tabulate_slices`.
    """
    rows = {(row.predictor, row.metric): row for row in _rows(scores)}
    value = {key: row.value for key, row in rows.items()}
    f1, skill = rows["model", "f1_micro"], rows["model", "loss_skill"]
    if not (skill.low >= 0 or skill.high <= 0):
        learnt = "cannot be told from the prior's"
    else:
        side = "below" if skill.value > 0 else "ABOVE"
        learnt = f"is {abs(skill.value):.0%} {side} the prior's"
    sure = f" (95% interval {f1.low:.2f} to {f1.high:.2f})" if f1.low == f1.low else ""
    return [
        f"On {photos} the model finds {value['model', 'recall_micro']:.0%} of the labels, and "
        f"{value['model', 'precision_micro']:.0%} of those it gives are right: micro F1 "
        f"{f1.value:.2f}{sure} and macro F1 "
        f"{value['model', 'f1_macro']:.2f}, where giving every photo the most frequent label would "
        f"reach {value['most frequent label', 'f1_micro']:.2f} and "
        f"{value['most frequent label', 'f1_macro']:.2f}; its loss, {value['model', 'loss']:.3f}, "
        f"{learnt}.",
        _compare_labels(per_label),
        f"{_describe_silence(value['model', 'unlabelled_accuracy'], 'known' not in scores)} "
        f"{_compare_slices(slices)}",
    ]


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _compare_labels(per_label: pd.DataFrame) -> str:
    known = per_label[per_label["support"] > 0].sort_values("f1", kind="stable")
    if len(known) < 2:
        return "There are too few labels with positives to compare them."
    told = [f"{row.label} ({row.f1:.2f})" for row in _rows(known)]
    some = min(3, len(told) // 2)
    best, worst = ", ".join(told[: -some - 1 : -1]), ", ".join(told[:some])
    sentence = f"By F1 it does best on {best} and worst on {worst}"
    last = _rows(known)[0]
    if last.recall == 0:
        sentence += f": of {last.label} it finds none ({last.support} here)"
    elif last.f1_high - last.f1_low > VAGUE:
        sentence += (
            f", though with {last.support} photos of {last.label} here its F1 may be anything "
            f"from {last.f1_low:.2f} to {last.f1_high:.2f}"
        )
    return f"{sentence}."


def _describe_silence(coverage: float, complete: bool) -> str:
    if np.isnan(coverage):
        return (
            "Every photo here has a label."
            if complete
            else "Of no photo here is it known that it has no label."
        )
    return f"Of the photos without labels it rightly leaves {coverage:.0%} alone."


def _compare_slices(slices: pd.DataFrame) -> str:
    """Name the widest gap between two groups whose intervals do not meet.

    By number of labels groups always differ, F1 being what it is, so that says nothing.
    """
    rows = [row for row in _rows(slices) if row.slice != "number of labels"]
    pairs = [
        (high, low)
        for high, low in permutations(rows, 2)
        if high.slice == low.slice and low.f1_micro_high < high.f1_micro_low
    ]
    if not pairs:
        return "No group of photos (by brightness, colour or size) is clearly weaker than another."
    high, low = max(pairs, key=lambda pair: pair[0].f1_micro - pair[1].f1_micro)
    return (
        f"By {low.slice} it is clearly weaker on {low.group} photos (F1 {low.f1_micro:.2f}) than "
        f"on {high.group} ones ({high.f1_micro:.2f})."
    )
