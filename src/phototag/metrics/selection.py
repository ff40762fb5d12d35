"""The rule that selects the best epoch, whose weights become the model.

A record is one row of reports/train/history.csv: an epoch of a training, or a step of a linear
probe. Each names the best one so far in the column `best_epoch` or `best_step`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Record = Mapping[Any, Any]
SelectionMetric = Literal["val_loss", "mAP"]


def step_number(record: Record) -> int:
    """Return the number of a record's epoch, or of its step in a linear probe, from 1."""
    return int(record["epoch"] if "epoch" in record else record["step"])


def selection_score(record: Record, metric: SelectionMetric) -> tuple[float, ...]:
    """Return a score of which the best epoch has the highest.

    Args:
        record: Values of `val_loss` and `mAP`.
        metric: `val_loss` selects the lowest val loss. `mAP` selects the highest mAP on val, and
            the lower val loss among equal ones.
    """
    if metric == "val_loss":
        return (-record["val_loss"],)
    return record["mAP"], -record["val_loss"]


def find_best(history: Sequence[Record], metric: SelectionMetric) -> Record:
    """Return the record with the highest selection score; the first of equal ones."""
    return max(history, key=lambda record: selection_score(record, metric))


def best_record(history: Sequence[Record]) -> Record:
    """Return the record that the last one names as the best.

    Histories of older versions do not name it; theirs is the record with the lowest val loss.

    Args:
        history: All records of a training, in order.
    """
    last = history[-1]
    number = last.get("best_epoch", last.get("best_step"))
    if number is None:
        return find_best(history, "val_loss")
    return next(record for record in history if step_number(record) == number)


def steps_since_best(history: Sequence[Record]) -> int:
    """Return the number of epochs, or of steps, since the best one; 0 for an empty history."""
    return len(history) - step_number(best_record(history)) if history else 0
