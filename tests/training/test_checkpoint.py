import os
from pathlib import Path

import pytest
import torch

from phototag.base.errors import InputError
from phototag.base.files import MAX_AGE
from phototag.training.checkpoint import (
    discard_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from tests.processes import full_disk


class Evil:
    """Object that would write a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


def test_full_disk_is_reported_and_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "key.pt"
    save_checkpoint(path, {"epoch": 1})
    before = path.read_bytes()
    with (
        full_disk(),
        pytest.raises(InputError, match=r"written \(File too large\): free some disk"),
    ):
        save_checkpoint(path, {"epoch": torch.zeros(1_000_000)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "key.pt")
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path / "key.pt")
    assert not (tmp_path / "hacked").exists()


def test_stale_checkpoints_are_removed(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pt" for name in ("done", "old", "new")]
    for path in paths:
        save_checkpoint(path, {})
    long_ago = paths[1].stat().st_mtime - MAX_AGE - 60
    os.utime(paths[1], (long_ago, long_ago))
    discard_checkpoint(paths[0])
    assert list(tmp_path.iterdir()) == [paths[2]]
