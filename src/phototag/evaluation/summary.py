"""Summary of an evaluation in three sentences."""

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

WIDE_INTERVAL = 0.2  # width of a confidence interval of F1 from which the summary mentions it


def summarize(
    photos: str, scores: pd.DataFrame, per_label: pd.DataFrame, slices: pd.DataFrame
) -> list[str]:
    """Describe the most important results in three sentences.

    Args:
        photos: Description of the evaluated photos, such as "400 test photos".
        scores: Table returned by `tabulate_scores`.
        per_label: Table returned by `tabulate_labels`.
        slices: Table returned by `tabulate_slices`.
    """
    rows = {(row.predictor, row.metric): row for row in _rows(scores)}
    value = {key: row.value for key, row in rows.items()}
    f1 = rows["model", "f1_micro"]
    interval = f" (95% confidence interval {f1.low:.2f} to {f1.high:.2f})"
    if np.isnan(f1.low):
        interval = ""
    return [
        f"On {photos}, the model has recall {value['model', 'recall_micro']:.0%} and precision "
        f"{value['model', 'precision_micro']:.0%}: micro F1 {f1.value:.2f}{interval} and macro F1 "
        f"{value['model', 'f1_macro']:.2f}. Predicting the most frequent label for every photo "
        f"would give {value['most frequent label', 'f1_micro']:.2f} and "
        f"{value['most frequent label', 'f1_macro']:.2f}. The loss, "
        f"{value['model', 'loss']:.3f}, {_compare_loss(rows['model', 'loss_skill'])}.",
        _compare_labels(per_label),
        f"{_describe_unlabelled(value['model', 'unlabelled_accuracy'], 'known' not in scores)} "
        f"{_compare_slices(slices)}",
    ]


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _compare_loss(skill: Any) -> str:
    """Compare the loss with that of the baseline, which predicts the label frequencies of train."""
    if not (skill.low >= 0 or skill.high <= 0):
        return "does not differ significantly from the baseline (label frequencies)"
    direction = "below" if skill.value > 0 else "ABOVE"
    return f"is {abs(skill.value):.0%} {direction} the baseline (label frequencies)"


def _compare_labels(per_label: pd.DataFrame) -> str:
    """Name the labels with the highest and the lowest F1."""
    present = per_label[per_label["support"] > 0].sort_values("f1", kind="stable")
    if len(present) < 2:
        return "Fewer than two labels have positives, so labels are not compared."
    names = [f"{row.label} ({row.f1:.2f})" for row in _rows(present)]
    number = min(3, len(names) // 2)
    best, worst = ", ".join(names[: -number - 1 : -1]), ", ".join(names[:number])
    sentence = f"F1 is highest for {best} and lowest for {worst}."
    last = _rows(present)[0]
    if last.recall == 0:
        sentence += f" No {last.label} is found (of {last.support})."
    elif last.f1_high - last.f1_low > WIDE_INTERVAL:
        sentence += (
            f" With only {last.support} positives, the F1 of {last.label} is uncertain: "
            f"{last.f1_low:.2f} to {last.f1_high:.2f}."
        )
    return sentence


def _describe_unlabelled(accuracy: float, complete: bool) -> str:
    """Describe how many of the photos without labels get no label."""
    if not np.isnan(accuracy):
        return f"For {accuracy:.0%} of the photos without labels, no label is predicted."
    return "Every photo has a label." if complete else "No photo is known to have no label."


def _compare_slices(slices: pd.DataFrame) -> str:
    """Describe the largest difference between two groups whose intervals do not overlap.

    Groups by number of labels are not compared, because F1 depends on the number of positives.
    """
    rows = [row for row in _rows(slices) if row.slice != "number of labels"]
    pairs = [
        (high, low)
        for high, low in permutations(rows, 2)
        if high.slice == low.slice and low.f1_micro_high < high.f1_micro_low
    ]
    if not pairs:
        return "No slice (brightness, colour, orientation, size) is significantly worse."
    high, low = max(pairs, key=lambda pair: pair[0].f1_micro - pair[1].f1_micro)
    return (
        f"By {low.slice}, micro F1 is significantly lower for {low.group} photos "
        f"({low.f1_micro:.2f}) than for {high.group} photos ({high.f1_micro:.2f})."
    )
