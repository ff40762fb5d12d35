"""The embed stage, and training on cached features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from torchvision import models

from phototag.base.errors import InputError
from phototag.dataset.dataset import read_datasets
from phototag.network import runtime
from phototag.network.inference import predict_logits
from phototag.network.weights import load_model
from stages import embed, train

BACKBONE: dict[str, Any] = {"name": "mobilenet_v3_small", "freeze": True, "linear": []}


@pytest.fixture
def frozen(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a frozen backbone whose weights are in a file."""
    torch.manual_seed(0)
    torch.save(models.mobilenet_v3_small().state_dict(), project / "w.pth")
    change(project, {**BACKBONE, "weights": "w.pth", "dropout": 0.0})
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    # Another test may have left its store in the environment.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(project)
    return project


def change(project: Path, model: dict[str, Any], **groups: Any) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["model"] |= model
    values["augment"] = dict.fromkeys(values["augment"], 0)
    values |= {"epochs": 3, "lr": 0.01} | groups
    (project / "params.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("model", "linear_probe_first"),
    [
        ({}, True),
        ({"freeze": True}, True),
        ({**BACKBONE, "freeze": False}, True),
        ({**BACKBONE, "freeze": False, "weights": "DEFAULT"}, False),
    ],
)
def test_embed_writes_empty_array_if_no_features_are_cached(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: dict[str, Any],
    linear_probe_first: bool,
) -> None:
    change(project, model)
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["finetune"]["linear_probe_first"] = linear_probe_first
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(project)
    (project / "data/images.npy").unlink()  # the stage does not read it
    embed.main()
    name = model.get("name", "conv")
    assert f"training of {name} uses no cached features" in capsys.readouterr().out
    assert np.load("data/features.npy").size == 0


@pytest.mark.slow
def test_model_trained_on_cached_features_takes_photos(
    frozen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed.main()
    assert np.load("data/features.npy").shape == (40, 1024)
    train.main()
    client = MlflowClient(f"sqlite:///{frozen / 'mlflow.db'}")
    (run,) = client.search_runs(["1"])
    assert run.data.tags["backbone"] == "mobilenet_v3_small"
    assert run.data.params["model.name"] == "mobilenet_v3_small"
    network, metadata = load_model(frozen / "models/model.safetensors")
    data = [frozen / "data" / name for name in ("images.npy", "manifest.csv", "splits.csv")]
    val = read_datasets(*data)["val"]
    logits = predict_logits(network, val, torch.device("cpu"))
    # The loss on cached features equals the loss on photos.
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits), torch.from_numpy(val.targets).float()
    )
    assert float(loss) == pytest.approx(metadata.val_loss, rel=1e-4)
    assert np.load("models/out_of_fold.npy").shape == (0, 0, 0)  # no linear probe
    backbone = torch.load(frozen / "w.pth")
    unchanged = network[1].state_dict()
    assert all(torch.equal(value, backbone[key]) for key, value in unchanged.items())
    change(frozen, {}, optimizer="lbfgs", weight_decay=0.1)
    values = yaml.safe_load((frozen / "params.yaml").read_text())
    values["train"]["ema"] = 0
    (frozen / "params.yaml").write_text(yaml.safe_dump(values))
    capsys.readouterr()
    train.main()
    assert "lr, momentum, batch_size, schedule and warmup are ignored" in capsys.readouterr().out
    assert np.load("models/out_of_fold.npy").shape == (1, 32, 3)
    probe, metadata = load_model(frozen / "models/model.safetensors")
    values |= {"lr": 0.5, "momentum": 0.1, "batch_size": 3, "schedule": "one-cycle", "warmup": 0.4}
    (frozen / "params.yaml").write_text(yaml.safe_dump(values))
    train.main()
    again, other = load_model(frozen / "models/model.safetensors")
    assert other.content_key != metadata.content_key
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in probe.state_dict().items())
    # DVC depends on the name of the weights only, not on their content.
    torch.manual_seed(1)
    torch.save(models.mobilenet_v3_small().state_dict(), frozen / "w.pth")
    advice = (
        r"features\.npy was computed from other photos .*`dvc repro --force --downstream embed`"
    )
    with pytest.raises(InputError, match=advice):
        train.main()
    embed.main()
    train.main()
    assert load_model(frozen / "models/model.safetensors")[1].content_key != other.content_key


@pytest.mark.slow
def test_finetuning_starts_from_a_linear_probe(
    frozen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(frozen, {"freeze": False}, optimizer="adamw", lr=1e-5, batch_size=8, epochs=2)
    embed.main()
    assert np.load("data/features.npy").shape == (40, 1024)
    train.main()
    assert "linear probe before fine-tuning: lowest L2" in capsys.readouterr().err
    network, metadata = load_model(frozen / "models/model.safetensors")
    assert not metadata.spec.frozen
    backbone = torch.load(frozen / "w.pth")
    trained = dict(network[1].named_parameters())
    assert not all(torch.equal(value, backbone[key]) for key, value in trained.items())
    client = MlflowClient(f"sqlite:///{frozen / 'mlflow.db'}")
    (run,) = client.search_runs(["1"])
    assert run.data.tags["backbone"] == "mobilenet_v3_small"
