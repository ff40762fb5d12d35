from typing import Any

import pytest

from phototag.metrics.selection import (
    SelectionMetric,
    best_record,
    find_best,
    step_number,
    steps_since_best,
)

EPOCHS: list[dict[str, Any]] = [
    {"epoch": 1, "val_loss": 0.2, "mAP": 0.24, "best_epoch": 1},
    {"epoch": 2, "val_loss": 0.4, "mAP": 0.35, "best_epoch": 2},
    {"epoch": 3, "val_loss": 0.3, "mAP": 0.35, "best_epoch": 2},
]


@pytest.mark.parametrize(("metric", "best"), [("val_loss", 1), ("mAP", 3)])
def test_best_epoch_has_lowest_val_loss_or_highest_map(metric: SelectionMetric, best: int) -> None:
    # Of two epochs with equal mAP, the one with the lower val loss is better.
    assert find_best(EPOCHS, metric)["epoch"] == best


def test_first_of_equal_epochs_is_best() -> None:
    assert find_best([EPOCHS[0], EPOCHS[0] | {"epoch": 2}], "val_loss")["epoch"] == 1


def test_best_record_is_the_one_that_the_last_record_names() -> None:
    assert best_record(EPOCHS) == EPOCHS[1]
    steps = [{"step": r["epoch"], "best_step": r["best_epoch"]} for r in EPOCHS]
    assert step_number(best_record(steps)) == 2
    older = [{"epoch": r["epoch"], "val_loss": r["val_loss"]} for r in EPOCHS]
    assert best_record(older) == older[0]


def test_steps_since_best_counts_records_after_the_best_one() -> None:
    assert [steps_since_best(EPOCHS[:count]) for count in range(4)] == [0, 0, 0, 1]
