"""Checkpoints: the state from which a killed training resumes, one file per content key.

The files lie under the project's root, outside DVC's outputs: a persistent output would carry the
weights of one experiment into the next.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phototag.base.errors import InputError
from phototag.base.files import remove_stale, replace_file
from phototag.network.distributed import run_on_first

Parts = Mapping[str, nn.Module | torch.optim.Optimizer]
Weights = dict[str, torch.Tensor]


def checkpoint_path(root: Path, key: str) -> Path:
    """Return the checkpoint file of a content key."""
    return root / ".phototag" / "checkpoints" / f"{key}.pt"


def avoid_longer(path: Path, epochs: int) -> Path:
    """Return another checkpoint file if `path` holds more than `epochs` epochs, else `path`.

    A shorter training then does not overwrite the state of a longer one.

    Raises:
        InputError: The file is damaged.
    """
    state = load_checkpoint(path)
    longer = state is not None and len(state["history"]) > epochs
    return path.with_name(f"{path.stem}-{epochs}.pt") if longer else path


def resume(
    path: Path | None, model: nn.Module, parts: Parts, epochs: int
) -> tuple[list[dict[str, Any]], Weights]:
    """Load the state of a killed training into its parts, if there is one.

    The first process reads the file, because other machines may not have it.

    Args:
        path: Checkpoint file; None starts from the beginning.
        model: The module that is trained.
        parts: Name -> module or optimizer, loaded in place.
        epochs: Epochs of this training; a state with more of them is ignored.

    Returns:
        Records of the completed epochs, and the weights of the best one. Without a state: no
        records, and a copy of the model's weights.

    Raises:
        InputError: The file is damaged.
    """
    state = run_on_first(lambda: load_checkpoint(path) if path else None)
    if state is None or len(state["history"]) > epochs:
        return [], copy.deepcopy(model.state_dict())
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["history"], state["best"]


def save_state(
    path: Path | None, history: list[dict[str, Any]], best: Weights, parts: Parts
) -> None:
    """Write what `resume` reads, in the first process.

    Args:
        path: Checkpoint file; None writes nothing.
        history: Records of the completed epochs.
        best: Weights of the best epoch.
        parts: Name -> module or optimizer.

    Raises:
        InputError: The file cannot be written.
    """
    if path is not None:
        state = {"history": history, "best": best}
        state |= {name: part.state_dict() for name, part in parts.items()}
        run_on_first(lambda: save_checkpoint(path, state))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values.

    Raises:
        InputError: The disk is full or read-only; the previous checkpoint is kept.
    """
    try:
        with replace_file(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path} could not be written ({error}): free some disk space and run the command "
            "again; training resumes from the previous epoch"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint on the CPU; return None if there is no file.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        # weights_only prevents the file from running code while it is read.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged ({reason}): remove it to start again") from None
    return state


def discard_checkpoint(path: Path) -> None:
    """Remove a checkpoint, and those of other trainings that are older than two weeks."""
    path.unlink(missing_ok=True)
    remove_stale(path.parent.glob("*.pt"))
