import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phototag.network import distributed
from phototag.schema.params import Params
from phototag.training import key
from phototag.training.key import training_key

CPU = torch.device("cpu")
MakeKey = Callable[..., str]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Inputs of the stage, and its script."""
    paths = [tmp_path / name for name in ("images.npy", "manifest.csv", "splits.csv", "train.py")]
    for path in paths:
        path.write_text(path.name)
    return paths


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packages' code, used instead of the packages."""
    for name in key.PACKAGES:
        shutil.copytree(key.SOURCES / name, tmp_path / "src" / name)
    monkeypatch.setattr(key, "SOURCES", tmp_path / "src")
    return tmp_path / "src"


@pytest.fixture
def make_key(params_values: dict[str, Any], inputs: list[Path]) -> MakeKey:
    """The key of the default params with changes; `group__name` changes a group."""

    def make(device: torch.device = CPU, **changes: Any) -> str:
        values = copy.deepcopy(params_values) | {"precision": "fp32"}
        for name, value in changes.items():
            group, _, key_name = name.rpartition("__")
            (values[group] if group else values)[key_name] = value
        params = Params.model_validate(values)
        return training_key(params.train_settings(), params.model, inputs, device)

    return make


def test_key_changes_with_each_input(make_key: MakeKey, inputs: list[Path]) -> None:
    keys = {make_key()}
    for path in inputs:
        path.write_text("other")
        keys.add(make_key())
    assert len(keys) == 1 + len(inputs)


def test_key_changes_with_the_code_of_training(make_key: MakeKey, packages: Path) -> None:
    files = sorted(packages.rglob("*.py"))
    assert {path.parent.name for path in files} == {
        *("base", "dataset", "metrics", "network", "training"),
    }
    for name in ("network/model.py", "metrics/selection.py", "training/checkpoint.py"):
        assert packages / name in files
    keys = [make_key()]
    for path in files:
        path.write_text(path.read_text() + "x = 1\n")
        keys.append(make_key())
    (packages / "network/new.py").write_text("")
    keys.append(make_key())
    (packages / "network/new.py").rename(packages / "network/newer.py")
    keys.append(make_key())
    assert len(set(keys)) == len(files) + 3


def test_key_changes_with_device_libraries_and_processes(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [make_key(), make_key(torch.device("cuda"))]
    for module in (torch, np):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "0.1")
            keys.append(make_key())
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "world_size", lambda: 2)
        keys.append(make_key())
    assert len(set(keys)) == len(keys)


def test_key_changes_with_the_library_of_the_backbone(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"conv": make_key(), "resnet18": make_key(model__name="resnet18")}
    monkeypatch.setattr(key, "version", lambda package: f"{package} 0.1")
    assert make_key() == names["conv"]
    assert make_key(model__name="resnet18") != names["resnet18"]
    timm = make_key(model__name="timm/resnet18")
    monkeypatch.setattr(key, "version", lambda package: "0.2" if package == "timm" else "0.1")
    assert make_key(model__name="timm/resnet18") != timm


def test_key_of_auto_is_that_of_the_selected_precision(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for native in (False, True):
        features = {"avx512_bf16": native}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=features: found)
        assert make_key(precision="auto") == make_key(precision=("fp32", "bf16")[native])
    assert make_key(precision="fp32") != make_key(precision="bf16")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"pos_weight": True},
        {"augment__crop": 0.1},
        {"model__linear": [8]},
        {"epochs": 9},
        {"train__ema": 0.9},
        {"train__compile": True},
    ],
    ids=str,
)
def test_key_changes_with_params(make_key: MakeKey, changes: dict[str, Any]) -> None:
    assert make_key(**changes) != make_key()


def test_key_depends_on_the_content_of_weights_files(make_key: MakeKey, tmp_path: Path) -> None:
    def ask(path: Path | str) -> str:
        return make_key(model__name="resnet18", model__weights=str(path))

    first, moved = tmp_path / "a.pth", tmp_path / "elsewhere.pth"
    first.write_bytes(b"weights")
    moved.write_bytes(b"weights")
    before = ask(first)
    assert ask(moved) == before
    first.write_bytes(b"replaced")
    assert ask(first) != before
    assert len({ask("DEFAULT"), ask("IMAGENET1K_V1"), before}) == 3


def test_key_ignores_paths_and_unrelated_files_and_params(
    make_key: MakeKey,
    packages: Path,
    inputs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = make_key()
    (packages / "base/notes.txt").write_text("no code")
    (packages / "evaluation").mkdir()
    (packages / "evaluation/report.py").write_text("# a comment")
    packages.rename(tmp_path / "moved")  # the path of the checkout
    monkeypatch.setattr(key, "SOURCES", tmp_path / "moved")
    inputs[0] = inputs[0].rename(tmp_path / "other.npy")
    assert make_key() == before
    for changes in (
        {"train__devices": 2},
        {"train__num_nodes": 2},
        {"evaluate__prior_strength": 1.0},
    ):
        assert make_key(**changes) == before
