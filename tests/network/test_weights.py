import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from phototag.base.errors import InputError
from phototag.network.backbones import required_packages
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from phototag.network.weights import (
    SYNTHETIC,
    Metadata,
    describe_origin,
    load_model,
    read_metadata,
    save_model,
)
from tests.models import make_model
from tests.processes import full_disk

SAVE = """
import sys, pathlib, torch
sys.path.insert(0, sys.argv[2])
from phototag.network.backbones import required_packages
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from phototag.network.weights import Metadata, save_model
spec = ModelParams.model_validate({"init": "he", "conv": [{"out": 4, "kernel": 3}], "linear": [8]})
torch.manual_seed(0)
model = build_model(spec, 2, 8, [0.5] * 3, [0.2] * 3)
values = {"init": "he", "conv": [{"out": 4, "kernel": 3}], "linear": [8]}
metadata = Metadata(["a", "b"], 8, [0.5] * 3, [0.2] * 3, values, "key", 3, 0.25)
save_model(pathlib.Path(sys.argv[1]), model, metadata)
"""


def test_saved_model_loads_equal(tmp_path: Path, tiny_spec: ModelParams) -> None:
    model = build_model(tiny_spec, 3, 16, [0.1, 0.2, 0.3], [0.2] * 3).eval()
    spec = tiny_spec.model_dump(mode="json")
    metadata = Metadata(["a", "b", "ü"], 16, [0.1, 0.2, 0.3], [0.2] * 3, spec, "key", 3, 0.25)
    save_model(tmp_path / "m" / "model.safetensors", model, metadata)
    loaded, read = load_model(tmp_path / "m" / "model.safetensors")
    assert read == metadata
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(loaded(images), model(images))
    assert not loaded.training


def test_tensors_of_any_kind_are_saved(tmp_path: Path) -> None:
    """Some timm networks use one layer several times, and the layer has several names."""
    layer = nn.Linear(3, 3)
    layer.register_buffer("scalar", torch.tensor(2))
    layer.register_buffer("mask", torch.tensor([True, False]))
    layer.register_buffer("spectrum", torch.tensor([1 + 2j]))
    transposed = torch.arange(6.0).view(2, 3).T
    layer.register_buffer("transposed", transposed)
    layer.register_buffer("row", transposed[1])
    model = nn.Sequential(layer, layer)
    metadata = Metadata(["a"], 16, [0.1] * 3, [0.2] * 3, {}, "key", 3, 0.25)
    save_model(tmp_path / "model.safetensors", model, metadata)
    saved, expected = load_file(tmp_path / "model.safetensors"), model.state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())


def test_model_file_has_same_bytes_in_two_processes(tmp_path: Path) -> None:
    source = str(Path(__file__).parents[2] / "src")
    subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path / "a"), source],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=True,
    )
    with mock.patch("sys.argv", ["", str(tmp_path / "b"), source]):
        exec(SAVE, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("name", "packages"),
    [("conv", []), ("resnet18", ["torchvision"]), ("timm/a+resnet18", ["timm", "torchvision"])],
)
def test_required_packages_are_those_of_the_backbones(
    tiny_spec: ModelParams, name: str, packages: list[str]
) -> None:
    spec = tiny_spec.model_copy(update={"name": name})
    assert required_packages(spec.backbones) == packages


@pytest.mark.parametrize("freeze", [False, True])
def test_saved_backbone_loads_without_its_weights_file(
    tmp_path: Path, tiny_spec: ModelParams, freeze: bool
) -> None:
    changes = {"name": "squeezenet1_1", "weights": "/gone/weights.pth", "freeze": freeze}
    spec = tiny_spec.model_copy(update=changes)
    model = build_model(spec, 3, 64, [0.1] * 3, [0.2] * 3).eval()
    values = spec.model_dump(mode="json")
    metadata = Metadata(["a", "b", "c"], 64, [0.1] * 3, [0.2] * 3, values, "key", 3, 0.25)
    save_model(tmp_path / "model.safetensors", model, metadata)
    loaded, _ = load_model(tmp_path / "model.safetensors")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(loaded(images), model(images))


def test_full_disk_is_reported_and_keeps_the_previous_model(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    metadata = read_metadata(path)
    with full_disk(), pytest.raises(InputError, match=r"model\.safetensors could not be written"):
        save_model(path, nn.Linear(1000, 1000), metadata)
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: run `dvc repro`$"):
        read_metadata(tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("no model")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    entry = {"phototag": json.dumps({"labels": ["sea"], "colours": 3})}
    save_file({"x": torch.zeros(1)}, tmp_path / "later", entry)
    for name in ("text", "foreign", "later"):
        with pytest.raises(InputError, match=f"{name} does not fit this version"):
            read_metadata(tmp_path / name)


def test_file_that_is_removed_while_it_is_read_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc repro` removes the model before it trains the next one."""
    path, _ = make_model(tmp_path)

    def build_slowly(*args: Any) -> nn.Sequential:
        path.unlink()
        return build_model(*args)

    monkeypatch.setattr("phototag.network.weights.build_model", build_slowly)
    with pytest.raises(InputError, match=r"missing: run `dvc repro`$"):
        load_model(path)


def test_origin_describes_the_training_photos(tmp_path: Path) -> None:
    synthetic, real, unknown = (
        read_metadata(make_model(tmp_path / name, source=source)[0])
        for name, source in (("synthetic", SYNTHETIC), ("real", "data/raw.zip"), ("unknown", ""))
    )
    assert "40 synthetic images only" in describe_origin(synthetic)
    assert describe_origin(real) == "The model was trained on 40 photos from data/raw.zip."
    assert describe_origin(unknown) == ""
    assert [found.is_synthetic for found in (synthetic, real, unknown)] == [True, False, False]


def test_file_without_origin_loads(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    values = asdict(read_metadata(path))
    del values["num_photos"], values["source"]
    save_file(load_file(path), path, {"phototag": json.dumps(values)})
    assert describe_origin(load_model(path)[1]) == ""


def test_file_of_changed_network_is_refused(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    tensors, values = load_file(path), asdict(read_metadata(path))
    later = values | {"model": values["model"] | {"attention": 8}}
    save_file(tensors, path, {"phototag": json.dumps(later)})
    with pytest.raises(InputError, match=r"does not fit this version of phototag .*attention"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, path, {"phototag": json.dumps(values)})
    with pytest.raises(InputError, match=r"does not fit this version of phototag .*state_dict"):
        load_model(path)
