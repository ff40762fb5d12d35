"""HTML report of an evaluation: figures, tables and example photos on one page."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.dataset.targets import is_known, label_rates
from phototag.evaluation import charts
from phototag.evaluation.galleries import Galleries
from phototag.evaluation.result import Evaluation
from phototag.evaluation.summary import summarize
from phototag.evaluation.tables import take_frequent
from phototag.metrics.losses import baseline_loss, sigmoid
from phototag.pages.figures import figure_style, save_figure
from phototag.pages.html import write_page

# Alternative text of each figure.
CAPTIONS = {
    "loss": "Train and val loss by epoch",
    "f1": "F1 on val by epoch",
    "per_label": "F1, precision and recall of each label",
    "pr_curves": "Precision-recall curves",
    "slices": "Micro F1 of each slice",
    "threshold_curves": "F1 of each label by threshold",
    "score_distributions": "Histograms of the probabilities of photos with and without each label",
    "calibration": "Reliability diagram and calibration error of each label",
    "cooccurrence": "Co-occurrence of true labels and of predicted labels",
}
WIDE = ("threshold_curves", "score_distributions", "calibration", "cooccurrence")
MAX_ROWS = 100  # rows of the table of labels


def draw_figures(result: Evaluation, history: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draw all figures and write them as PNG files.

    Args:
        result: Evaluation of the model.
        history: One row per epoch, as in history.csv.
        folder: Folder of the files.

    Returns:
        Name of the figure, a key of `CAPTIONS` -> data URI. The figure `slices` is omitted if all
        photos belong to one group.
    """
    train, val, evaluated = (result.datasets[name] for name in ("train", "val", result.split))
    labels, targets, thresholds = evaluated.labels, evaluated.targets, result.thresholds
    per_label, slices = result.tables["per_label"], result.tables["slices"]
    probabilities = sigmoid(result.logits[result.split])
    on_val = (val.targets, sigmoid(result.logits["val"]))
    on_test = (targets, probabilities) if result.split == "test" else None
    baseline = baseline_loss(label_rates(train.targets), val.targets)
    with figure_style():
        figures = {
            "loss": charts.draw_loss(history, baseline),
            "f1": charts.draw_f1(history),
            "per_label": charts.draw_per_label(per_label),
            "pr_curves": charts.draw_pr_curves(targets, probabilities),
            "threshold_curves": charts.draw_threshold_curves(labels, on_val, on_test, thresholds),
            "score_distributions": charts.draw_score_distributions(
                labels, targets, probabilities, thresholds.values
            ),
            "calibration": charts.draw_calibration(targets, _calibrations(result), per_label),
            "cooccurrence": charts.draw_cooccurrence(
                labels, targets, probabilities >= thresholds.values
            ),
        }
        if len(slices):
            figures["slices"] = charts.draw_slices(slices)
        return {
            name: save_figure(figures[name], folder / f"{name}.png")
            for name in CAPTIONS
            if name in figures
        }


def _calibrations(result: Evaluation) -> dict[str, np.ndarray]:
    """Return the probabilities with and without temperature scaling, the model's own first."""
    logits = result.logits[result.split]
    if result.applied_temperature == 1:
        scaled = sigmoid(logits / result.temperature)
        return {"model": sigmoid(logits), "with temperature scaling": scaled}
    unscaled = sigmoid(logits * result.applied_temperature)
    return {"model": sigmoid(logits), "without temperature scaling": unscaled}


def write_report(
    page: Path,
    result: Evaluation,
    figures: Mapping[str, str],
    galleries: Galleries,
    origin: str = "",
) -> None:
    """Write an HTML page that needs no other file.

    Args:
        page: HTML file to write.
        result: Evaluation of the model.
        figures: Figures returned by `draw_figures`.
        galleries: Example photos returned by `build_galleries`.
        origin: Sentence on the photos that the model was trained on, returned by
            `describe_origin`.
    """
    scores, per_label, slices = (result.tables[name] for name in ("scores", "per_label", "slices"))
    evaluated = result.datasets[result.split]
    known, entries = np.count_nonzero(is_known(evaluated.targets)), evaluated.targets.size
    partly = "" if evaluated.complete else f"{known} of {entries} entries"
    photos = f"{len(evaluated)} {result.split} photos"
    if partly:
        photos += f" ({partly} are known)"
    examples = [e for kinds in galleries.values() for group in kinds.values() for e in group]
    write_page(
        page,
        "phototag.evaluation",
        "report.html.j2",
        title="Evaluation",
        headline=[*summarize(photos, scores, per_label, slices), *([origin] if origin else [])],
        split=result.split,
        partly=partly,
        predictors=list(dict.fromkeys(scores["predictor"])),
        metrics=list(dict.fromkeys(scores["metric"])),
        cells=scores.set_index(["metric", "predictor"]).to_dict("index"),
        labels=take_frequent(per_label, MAX_ROWS).to_dict("records"),
        num_labels=len(per_label),
        slices=slices.to_dict("records"),
        temperature=result.temperature,
        chosen_on=result.thresholds.chosen_on,
        calibrated=result.applied_temperature != 1,
        num_label_errors=len(result.tables["label_errors"]),
        figures={name: (image, CAPTIONS[name], name in WIDE) for name, image in figures.items()},
        galleries=galleries,
        has_heat_maps=all(example.heat for example in examples),
    )
