"""Fine-tuning of pretrained backbones."""

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phototag.dataset.dataset import Dataset
from phototag.metrics.losses import binary_cross_entropy
from phototag.network import backbones
from phototag.network import model as network
from phototag.network.features import standardize_features
from phototag.network.inference import predict_logits
from phototag.schema.params import Params
from phototag.training import loop
from phototag.training.linear_probe import start_from_linear_probe
from phototag.training.records import Record

CPU = torch.device("cpu")
Datasets = dict[str, Dataset]


def make_backbone() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


@pytest.fixture
def params(params_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Params:
    """Params of fine-tuning, with a small network instead of a pretrained one."""

    def build(*_: Any) -> backbones.Backbone:
        made = make_backbone()
        return backbones.Backbone(made, made, 12, [0.5] * 3, [0.25] * 3)

    monkeypatch.setattr(network, "build_backbone", build)
    monkeypatch.setattr(network, "read_pretrained", lambda *_: make_backbone().state_dict())
    values = copy.deepcopy(params_values)
    values |= {"lr": 0.003, "batch_size": 8, "epochs": 4, "optimizer": "adamw", "precision": "fp32"}
    values["model"] |= {"name": "small", "weights": "DEFAULT"}
    return Params.model_validate(values)


def change(params: Params, group: str, **changes: Any) -> Params:
    return params.model_copy(update={group: getattr(params, group).model_copy(update=changes)})


def build(params: Params, datasets: Datasets) -> nn.Sequential:
    """Build a network and fit its head with a linear probe, as the stage does."""
    torch.manual_seed(0)
    train, val = datasets["train"], datasets["val"]
    model = network.build_model(params.model, 3, 16, [0.5] * 3, [0.25] * 3)
    network.initialize(model, params.model, torch.from_numpy(train.targets).float().mean(dim=0))
    with torch.inference_mode():
        photos = torch.from_numpy(train.images.copy()).permute(0, 3, 1, 2)
        features = model[:2].eval()(photos).numpy()
    standardize_features(model[2], features, train.rows)
    head = replace(train, images=features), replace(val, images=features)
    start_from_linear_probe(model[2:], *head, params)
    return model


def fit(
    params: Params, datasets: Datasets, checkpoint: Path | None = None
) -> tuple[nn.Sequential, list[Record]]:
    model = build(params, datasets)
    return model, list(loop.fit(model, datasets["train"], datasets["val"], params, checkpoint))


def judge(model: nn.Module, val: Dataset) -> float:
    return binary_cross_entropy(val.targets, predict_logits(model, val, CPU))


def test_linear_probe_leaves_the_backbone_unchanged(params: Params, datasets: Datasets) -> None:
    model = build(params, datasets)
    for mine, its in zip(
        model[1].state_dict().values(), make_backbone().state_dict().values(), strict=True
    ):
        assert torch.equal(mine, its)
    prior = datasets["train"].targets.mean(axis=0)
    val = datasets["val"]
    logits = np.tile(np.log(prior / (1 - prior)), (len(val), 1))
    assert judge(model, val) < binary_cross_entropy(val.targets, logits)


def test_finetuning_resumes_to_the_same_bytes(
    params: Params, datasets: Datasets, tmp_path: Path
) -> None:
    params = change(params, "train", ema=0.9)
    whole, records = fit(params, datasets)
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert judge(whole, datasets["val"]) == pytest.approx(min(r["val_loss"] for r in records))
    assert [record["lr"] for record in records] == [params.lr] * 4  # the head's
    trained = {name for name, value in whole.named_parameters()}
    started = dict(build(params, datasets).named_parameters())
    weights = dict(whole.named_parameters())
    assert not [name for name in trained if torch.equal(weights[name], started[name])]

    state = tmp_path / "state.pt"
    model = build(params, datasets)
    begun = loop.fit(model, datasets["train"], datasets["val"], params, state)
    assert len(list(islice(begun, 2))) == 2
    resumed, again = fit(params, datasets, state)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert [r["val_loss"] for r in again] == [r["val_loss"] for r in records]


@pytest.mark.parametrize("freeze", [True, False])
def test_batch_norm_statistics_are_frozen_or_updated(
    params: Params, datasets: Datasets, freeze: bool
) -> None:
    params = change(params, "finetune", freeze_batch_norm=freeze)
    model, _ = fit(params, datasets)
    for name, value in model[1].named_buffers():
        assert torch.equal(value, dict(make_backbone().named_buffers())[name]) == freeze, name


@pytest.mark.parametrize("parts", [2, 3, 8, 50])
def test_accumulated_parts_equal_the_whole_batch(
    params: Params, datasets: Datasets, parts: int
) -> None:
    """With frozen statistics, photos of a batch do not affect each other."""
    _, whole = fit(params, datasets)
    seen: list[int] = []
    normalize = network.Normalize.forward

    def watch(layer: network.Normalize, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images) * torch.is_grad_enabled())
        return normalize(layer, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network.Normalize, "forward", watch)
        _, split = fit(change(params, "train", accumulate=parts), datasets)
    assert max(seen) == max(-(-8 // parts), 1)
    for name in ("train_loss", "val_loss"):
        expected = [record[name] for record in whole]
        assert [record[name] for record in split] == pytest.approx(expected, abs=1e-5)
