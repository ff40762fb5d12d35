"""Choice of the best epoch in the records of a training."""

from collections.abc import Mapping, Sequence
from typing import Any


def kept_epoch(history: Sequence[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    """Return the record of the epoch whose weights are kept.

    Each record names in `kept` the best epoch up to it. Those of older trainings do not, which
    went by the val loss.

    Args:
        history: One record an epoch.
    """
    if "kept" not in history[-1]:
        return min(history, key=lambda record: record["val_loss"])
    return next(record for record in history if record["epoch"] == history[-1]["kept"])
