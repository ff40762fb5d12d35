import copy
from typing import Any

import pytest
import torch
from torch import nn

from phototag.network.model import build_model, find_head, list_backbones
from phototag.schema.params import Params
from phototag.training.optimizers import DEPTHS, build_optimizer, group_parameters

FIRST = 0.01


@pytest.fixture
def params(params_values: dict[str, Any]) -> Params:
    """Params that train two pretrained backbones further."""
    values = copy.deepcopy(params_values)
    values |= {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.05}
    values["model"] |= {"name": "mobilenet_v3_small+resnet18", "weights": ["a.pth", "b.pth"]}
    values["finetune"] |= {"first_lr": FIRST}
    return Params.model_validate(values)


@pytest.fixture
def model(params: Params) -> nn.Sequential:
    return build_model(params.model, 3, 32, [0.5] * 3, [0.25] * 3)


def test_learning_rate_rises_from_first_layer_to_head(params: Params, model: nn.Sequential) -> None:
    shares = {
        parameter: group["lr_share"]
        for group in group_parameters(model, params)
        for parameter in group["params"]
    }
    assert set(shares) == set(model.parameters())
    assert sum(len(group["params"]) for group in group_parameters(model, params)) == len(shares)
    for backbone in list_backbones(model):
        rising = [shares[parameter] for parameter in backbone.parameters()]
        assert rising == sorted(rising)
        assert rising[0] == pytest.approx(FIRST)
        assert sorted(set(rising)) == pytest.approx(
            [FIRST ** (1 - depth / DEPTHS) for depth in range(DEPTHS)]
        )
    assert {shares[parameter] for parameter in find_head(model).parameters()} == {1}


def test_biases_and_normalisation_have_no_weight_decay(
    params: Params, model: nn.Sequential
) -> None:
    optimizer = build_optimizer(model, params)
    for group in optimizer.param_groups:
        flat = {parameter.ndim <= 1 for parameter in group["params"]}
        assert flat == {group["weight_decay"] == 0}
    # With zero gradients, weight decay shrinks only matrices and kernels.
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (value.ndim <= 1 or not before[name].any()), name


def test_network_without_finetuning_is_one_group(params: Params) -> None:
    for changes in ({"name": "conv"}, {"name": "resnet18", "weights": None}, {"freeze": True}):
        spec = params.model.model_copy(update=changes)
        layer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        (group,) = group_parameters(layer, params.model_copy(update={"model": spec}))
        assert group == {"params": list(layer.parameters()), "lr_share": 1}
