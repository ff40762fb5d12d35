"""Checkpoints: files from which interrupted trainings resume, one file per content key.

The files are in `.phototag/checkpoints`. They are not DVC outputs, because a persistent output
would carry the weights of one experiment over to the next experiment.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phototag.base.errors import InputError
from phototag.base.files import remove_stale, replace_file
from phototag.metrics.selection import find_best, step_number, steps_since_best
from phototag.network.distributed import run_on_first
from phototag.training.params import TrainingParams
from phototag.training.records import Record


class History:
    """Records of a training run and the weights of its best epoch, saved in a checkpoint.

    Args:
        path: Checkpoint file, or None to save no checkpoint. If the file exists, the training
            resumes from it.
        parts: Modules and optimizers by name. Their states are saved in the checkpoint, and loaded
            from it if the file exists.
        params: Params of the `train` stage.

    Attributes:
        records: Records of the completed epochs, or of the completed steps of a linear probe.
        best_weights: State dict of the model after the best epoch.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(
        self,
        path: Path | None,
        parts: Mapping[str, nn.Module | torch.optim.Optimizer],
        params: TrainingParams,
    ) -> None:
        self.path, self.parts, self.params = path, parts, params
        # Only the first process reads the file, because other machines do not have it.
        state = run_on_first(lambda: load_checkpoint(path) if path else None)
        self.records: list[Record] = state["history"] if state else []
        self.best_weights: dict[str, Any] = state["best"] if state else {}
        if state:
            for name, part in parts.items():
                part.load_state_dict(state[name])

    def remaining(self) -> Iterator[int]:
        """Yield the numbers of the remaining epochs or steps; early stopping ends them."""
        patience = self.params.train.early_stopping
        for number in range(len(self.records) + 1, self.params.epochs + 1):
            if patience and steps_since_best(self.records) >= patience:
                return
            yield number

    def add(self, record: Record, model: nn.Module) -> Record:
        """Save a checkpoint with a new record; return the record with the best epoch or step.

        Args:
            record: Results of an epoch (gets `best_epoch`) or linear probe step (gets `best_step`).
            model: Evaluated module, whose weights are kept if this record is the best one.

        Raises:
            InputError: The checkpoint could not be written.
        """
        best = step_number(find_best([*self.records, record], self.params.selection_metric))
        self.records.append(record | {"best_epoch" if "epoch" in record else "best_step": best})
        if best == len(self.records):
            self.best_weights = copy.deepcopy(model.state_dict())
        if self.path is not None:
            state = {"history": self.records, "best": self.best_weights}
            state |= {name: part.state_dict() for name, part in self.parts.items()}
            run_on_first(partial(save_checkpoint, self.path, state))
        return self.records[-1]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, which can contain tensors and plain values.

    Raises:
        InputError: The disk is full or read-only. The previous checkpoint is kept.
    """
    with replace_file(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Load a checkpoint onto the CPU, or return None if the file does not exist.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        # weights_only prevents a malicious file from running code when it is loaded.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged ({reason}): remove it to restart training") from None
    return state


def discard_checkpoint(path: Path) -> None:
    """Remove a checkpoint, and checkpoints of other trainings that are older than two weeks."""
    path.unlink(missing_ok=True)
    remove_stale(path.parent.glob("*.pt"))
