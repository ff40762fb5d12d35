import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from phototag.base.errors import InputError
from phototag.network.model import build_model
from phototag.network.params import ModelParams
from phototag.network.weights import (
    DRAWN,
    Metadata,
    describe_origin,
    load_model,
    read_metadata,
    required_packages,
    save_model,
)
from tests.models import make_model

SAVE = """
import sys, pathlib, torch
sys.path.insert(0, sys.argv[2])
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


def test_round_trip(tmp_path: Path, tiny_spec: ModelParams) -> None:
    model = build_model(tiny_spec, 3, 16, [0.1, 0.2, 0.3], [0.2] * 3).eval()
    spec = tiny_spec.model_dump(mode="json")
    metadata = Metadata(["a", "b", "ü"], 16, [0.1, 0.2, 0.3], [0.2] * 3, spec, "key", 3, 0.25)
    save_model(tmp_path / "m" / "model.safetensors", model, metadata)
    loaded, read = load_model(tmp_path / "m" / "model.safetensors")
    assert read == metadata
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(loaded(images), model(images))
    assert not loaded.training


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
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
def test_a_model_says_which_packages_bring_its_backbones(
    tiny_spec: ModelParams, name: str, packages: list[str]
) -> None:
    spec = tiny_spec.model_copy(update={"name": name}).model_dump(mode="json")
    metadata = Metadata(["a"], 16, [0.1] * 3, [0.2] * 3, spec, "key", 3, 0.25)
    assert required_packages(metadata) == packages


@pytest.mark.parametrize("freeze", [False, True])
def test_backbones_come_back_without_their_weights_file(
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


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing: `dvc repro train` makes it"):
        read_metadata(tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("no model")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    for name in ("text", "foreign"):
        with pytest.raises(InputError, match=f"{name} is no phototag model"):
            read_metadata(tmp_path / name)


def test_a_model_says_what_it_was_trained_on(tmp_path: Path) -> None:
    drawn, real, silent = (
        read_metadata(make_model(tmp_path / name, source=source)[0])
        for name, source in (("drawn", DRAWN), ("real", "data/raw.zip"), ("silent", ""))
    )
    assert "40 drawn scenes alone: it knows no real photos" in describe_origin(drawn)
    assert describe_origin(real) == "Trained on 40 photos of data/raw.zip."
    assert describe_origin(silent) == ""
    assert [found.is_drawn for found in (drawn, real, silent)] == [True, False, False]


def test_a_file_of_before_this_was_told_loads(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    values = asdict(read_metadata(path))
    del values["num_photos"], values["source"]
    save_file(load_file(path), path, {"phototag": json.dumps(values)})
    assert describe_origin(load_model(path)[1]) == ""


def test_a_network_that_is_built_otherwise_by_now_is_told(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    tensors, values = load_file(path), asdict(read_metadata(path))
    later = values | {"model": values["model"] | {"attention": 8}}
    save_file(tensors, path, {"phototag": json.dumps(later)})
    with pytest.raises(InputError, match=r"does not fit this version of phototag: .*attention"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, path, {"phototag": json.dumps(values)})
    with pytest.raises(InputError, match=r"does not fit this version of phototag: .*state_dict"):
        load_model(path)


def test_a_file_of_a_later_version_is_told(tmp_path: Path) -> None:
    entry = {"phototag": json.dumps({"labels": ["sea"], "colours": 3})}
    save_file({"x": torch.zeros(1)}, tmp_path / "later", entry)
    with pytest.raises(InputError, match="later is of another version of phototag"):
        read_metadata(tmp_path / "later")
