"""HTML report of an evaluation, with figures, tables and example photos."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phototag.dataset.targets import is_known, label_rates
from phototag.evaluation import charts
from phototag.evaluation.galleries import Example, Galleries
from phototag.evaluation.held_out import OUT_OF_FOLD
from phototag.evaluation.result import Evaluation
from phototag.evaluation.tables import sort_labels
from phototag.evaluation.targets import describe_targets
from phototag.metrics.classification import MIN_POSITIVES
from phototag.metrics.losses import baseline_loss, sigmoid
from phototag.metrics.selection import describe_evaluated, name_photos
from phototag.pages.figures import figure_style, save_figure
from phototag.pages.html import write_page

MAX_ROWS = 100  # largest number of rows in the table of labels


def draw_figures(result: Evaluation, history: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draw all figures and save them as PNG files.

    Args:
        result: Evaluation of the model.
        history: Content of history.csv, one row per epoch or linear probe step.
        folder: Folder to which the PNG files are written.

    Returns:
        Dictionary from the name of each figure to its data URI.
    """
    evaluated, fitted_on, chosen_on = result.evaluated, result.fitted_on, result.chosen_on
    targets, baseline = evaluated.photos.targets, label_rates(fitted_on.targets)
    calibrations = {
        "without temperature scaling": sigmoid(evaluated.raw),
        "with temperature scaling": sigmoid(evaluated.scaled),
    }
    with figure_style():
        figures = {
            "loss": charts.draw_loss(
                history,
                result.point.thresholds.chosen_on,
                baseline_loss(baseline, chosen_on.targets),
            ),
            "pr_curve": charts.draw_pr_curve(
                result.tables["pr_curve"], (targets[is_known(targets)] > 0).mean()
            ),
            "reliability": charts.draw_reliability(targets, calibrations),
            "score_distributions": charts.draw_score_distributions(
                chosen_on.labels, targets, evaluated.probabilities, result.point.thresholds.values
            ),
        }
        return {
            name: save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()
        }


def write_report(
    page: Path,
    result: Evaluation,
    figures: Mapping[str, str],
    galleries: Galleries,
    origin: str,
    facts: Mapping[str, object],
    least_familiar: Sequence[Example] = (),
) -> None:
    """Write the report as an HTML file that includes all its images.

    Args:
        page: HTML file to write.
        result: Evaluation of the model.
        figures: Data URIs returned by `draw_figures`.
        galleries: Example photos returned by `build_galleries`.
        origin: Sentence returned by `describe_origin`; it describes the photos that the model
            was trained on.
        facts: Names and values that the page lists below the summary, such as the seed.
        least_familiar: Example photos returned by `list_least_familiar`.
    """
    scores, per_label, slices = (result.tables[name] for name in ("scores", "per_label", "slices"))
    evaluated = result.evaluated.photos
    photos, partly = name_photos(len(evaluated), result.evaluated_on), ""
    if not evaluated.complete:
        known = np.count_nonzero(is_known(evaluated.targets))
        partly = f"{known} of {evaluated.targets.size} entries"
        photos += f" ({partly} are known)"
    examples = [e for kinds in galleries.values() for group in kinds.values() for e in group]
    frequent = np.sort(sort_labels(evaluated.targets)[:MAX_ROWS])
    write_page(
        page,
        "phototag.evaluation",
        "report.html.j2",
        title="Evaluation",
        headline=list(filter(None, [*summarize(photos, scores, per_label, slices), origin])),
        facts=facts,
        evaluated_on=result.evaluated_on,
        where=describe_evaluated(result.evaluated_on),
        photos=photos,
        min_positives=MIN_POSITIVES,
        partly=partly,
        predictors=list(dict.fromkeys(scores["predictor"])),
        metrics=list(dict.fromkeys(scores["metric"])),
        cells=scores.set_index(["metric", "predictor"]).to_dict("index"),
        labels=per_label.iloc[frequent].to_dict("records"),
        num_labels=len(per_label),
        targeted="target" in per_label,
        slices=slices.to_dict("records"),
        temperature=result.point.temperature,
        chosen_on=result.point.thresholds.chosen_on,
        is_probe=result.point.thresholds.chosen_on == OUT_OF_FOLD,
        calibrated=result.point.divisor != 1,
        num_label_errors=len(result.tables["label_errors"]),
        figures=figures,
        galleries=galleries,
        least_familiar=least_familiar,
        has_heat_maps=all(example.heat for example in examples),
    )


def summarize(
    photos: str, scores: pd.DataFrame, per_label: pd.DataFrame, slices: pd.DataFrame
) -> list[str]:
    """Summarize the scores, the labels with the highest and lowest F1, and the worst slice.

    `photos` describes the evaluated photos, such as "400 test photos".
    """
    rows: dict[Any, Any] = {(row.predictor, row.metric): row for row in scores.itertuples()}
    value = {key: row.value for key, row in rows.items()}
    f1 = rows["model", "f1_micro"]
    interval = f" (95% confidence interval {f1.low:.2f} to {f1.high:.2f})"
    if np.isnan(f1.low):
        interval = ""
    return [
        f"On {photos}, the model has recall {value['model', 'recall_micro']:.0%} and precision "
        f"{value['model', 'precision_micro']:.0%}: micro F1 {f1.value:.2f}{interval} and macro F1 "
        f"{value['model', 'f1_macro']:.2f}. Predicting the most frequent label for every photo "
        f"would give micro F1 {value['most frequent label', 'f1_micro']:.2f} and macro F1 "
        f"{value['most frequent label', 'f1_macro']:.2f}. The loss, "
        f"{value['model', 'loss']:.3f}, {_compare_loss(rows['model', 'loss_skill'])}.",
        *describe_targets(scores, per_label),
        _compare_labels(per_label),
        _compare_slices(slices),
    ]


def _compare_loss(skill: Any) -> str:
    """Compare the loss of the model with the loss of the constant baseline, in words."""
    if not (skill.low >= 0 or skill.high <= 0):
        return "does not differ significantly from the baseline (label frequencies)"
    direction = "below" if skill.value > 0 else "ABOVE"
    return f"is {abs(skill.value):.0%} {direction} the baseline (label frequencies)"


def _compare_labels(per_label: pd.DataFrame) -> str:
    """Name the labels with the highest F1 (at most three) and as many with the lowest F1."""
    enough = per_label[per_label["support"] >= MIN_POSITIVES].sort_values("f1", kind="stable")
    if len(enough) < 2:
        return f"Fewer than two labels have {MIN_POSITIVES} positives: too few to compare labels."
    pairs = zip(enough["label"], enough["f1"], strict=True)
    names = [f"{label} ({f1:.2f})" for label, f1 in pairs]
    number = min(3, len(names) // 2)
    best, worst = ", ".join(names[: -number - 1 : -1]), ", ".join(names[:number])
    few = len(per_label) - len(enough)
    note = f" Labels with too few positives to judge: {few} of {len(per_label)}." if few else ""
    return f"F1 is highest for {best} and lowest for {worst}.{note}"


def _compare_slices(slices: pd.DataFrame) -> str:
    """Describe the largest significant F1 difference (disjoint intervals) within one slice."""
    groups: list[Any] = list(slices.itertuples())
    pairs = [
        (high, low)
        for high, low in permutations(groups, 2)
        if high.slice == low.slice and low.f1_micro_high < high.f1_micro_low
    ]
    if not pairs:
        return "Scores do not differ significantly by brightness, colour, orientation or size."
    high, low = max(pairs, key=lambda pair: pair[0].f1_micro - pair[1].f1_micro)
    return (
        f"By {low.slice}, micro F1 is significantly lower for {low.group} photos "
        f"({low.f1_micro:.2f}) than for {high.group} photos ({high.f1_micro:.2f})."
    )
