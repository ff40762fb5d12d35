"""The state from which a killed training goes on, one file for each content key.

It lives under the project's root, outside DVC's outputs: as an output that persists, it would
carry one experiment's weights into the next.
"""

from pathlib import Path
from typing import Any

import torch

from phototag.base.errors import InputError
from phototag.base.files import remove_stale, replace_file


def checkpoint_path(root: Path, key: str) -> Path:
    """Return where the state of this content key belongs."""
    return root / ".phototag" / "checkpoints" / f"{key}.pt"


def avoid_longer(path: Path, epochs: int) -> Path:
    """Return where a training of so many epochs keeps its state: never over that of a longer one.

    Raises:
        InputError: The file is damaged.
    """
    state = load_checkpoint(path)
    longer = state is not None and len(state["history"]) > epochs
    return path.with_name(f"{path.stem}-{epochs}.pt") if longer else path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values.

    Raises:
        InputError: The disk is full, or does not let us write; the former state is still there.
    """
    try:
        with replace_file(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path} could not be written ({error}): free some disk space and run the same "
            "command again; it goes on from the epoch before"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read the state on the CPU; None where there is none.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        # weights_only: a file cannot run code while it is read.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged ({reason}): remove it to start anew") from None
    return state


def discard_checkpoint(path: Path) -> None:
    """Remove a state that is no longer needed, and those that nobody took up for two weeks."""
    path.unlink(missing_ok=True)
    remove_stale(path.parent.glob("*.pt"))
