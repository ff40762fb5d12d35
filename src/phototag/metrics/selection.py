"""Selection of the best epoch, whose weights become the model.

A record is one row of reports/train/history.csv. It describes an epoch of training or a step of a
linear probe. Its column `best_epoch` or `best_step` contains the best epoch or step so far.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

Record = Mapping[Any, Any]
SelectionMetric = Literal["val_loss", "mAP"]
CROSS_VALIDATION = "cross-validation"
# Prefixes of the scores in metrics.json, by the photos on which a model is evaluated: test, val, or
# train and val (cross-validation). The prefixed names differ from those of the metrics of an epoch.
SCORE_PREFIXES = {"test": "", "val": "final_val_", CROSS_VALIDATION: "cross_validation_"}


def step_number(record: Record) -> int:
    """Return the epoch of a record, or its step if it describes a linear probe; both start at 1."""
    return int(record["epoch"] if "epoch" in record else record["step"])


def find_best(history: Sequence[Record], metric: SelectionMetric) -> Record:
    """Return the first record with the lowest val loss, or with the highest mAP on val.

    If several records have the highest mAP, those with the lowest val loss are considered.
    """
    if metric == "val_loss":
        return min(history, key=lambda record: record["val_loss"])
    return max(history, key=lambda record: (record["mAP"], -record["val_loss"]))


def best_record(history: Sequence[Record]) -> Record:
    """Return the record of the best epoch or step of a training run.

    The last record contains the number of the best epoch or step. Histories written by older
    versions lack this number; for these, the record with the lowest val loss is returned.

    Args:
        history: All records of a training run, sorted by epoch or step.
    """
    last = history[-1]
    number = last.get("best_epoch", last.get("best_step"))
    if number is None:
        return find_best(history, "val_loss")
    return next(record for record in history if step_number(record) == number)


def find_evaluated(names: Collection[str]) -> str:
    """Return what a model was evaluated on, given the names of its scores in metrics.json."""
    for evaluated_on, prefix in SCORE_PREFIXES.items():
        if prefix and any(name.startswith(prefix) for name in names):
            return evaluated_on
    return "test"


def describe_evaluated(evaluated_on: str) -> str:
    """Return `on test`, `on val` or `by cross-validation`, to describe scores in a text."""
    return f"{'by' if evaluated_on == CROSS_VALIDATION else 'on'} {evaluated_on}"


def name_photos(number: int, evaluated_on: str) -> str:
    """Return a description of the evaluated photos, such as `240 test photos`."""
    if evaluated_on == CROSS_VALIDATION:
        return f"{number} photos (by {evaluated_on})"
    return f"{number} {evaluated_on} photos"


def steps_since_best(history: Sequence[Record]) -> int:
    """Return the number of epochs or steps after the best one; 0 if the history is empty."""
    return len(history) - step_number(best_record(history)) if history else 0
