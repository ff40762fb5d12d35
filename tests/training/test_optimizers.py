import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from phototag.network.model import build_model, find_head, list_backbones
from phototag.schema.params import Params
from phototag.training.optimizers import (
    DEPTHS,
    build_optimizer,
    group_parameters,
    learning_rate,
)

FIRST = 0.01
TOTAL, PEAK = 50, 0.1


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


def rates_of(params: Params, name: str, warmup: float = 0) -> list[float]:
    """Return the learning rates of 5 epochs of 10 steps."""
    changes = {"lr": PEAK, "epochs": 5, "schedule": name, "warmup": warmup}
    params = params.model_copy(update=changes)
    return [learning_rate(params, step, 10) for step in range(TOTAL)]


def rates_of_torch(build: type, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], PEAK)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = build(optimizer, **options)
        for _ in range(TOTAL):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def test_constant_rate_is_the_peak(params: Params) -> None:
    assert rates_of(params, "constant") == [PEAK] * TOTAL


def test_cosine_matches_pytorch(params: Params) -> None:
    expected = rates_of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=TOTAL)
    assert rates_of(params, "cosine") == pytest.approx(expected)


def test_one_cycle_matches_pytorch(params: Params) -> None:
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    expected = rates_of_torch(one_cycle, max_lr=PEAK, total_steps=TOTAL, cycle_momentum=False)
    assert rates_of(params, "one-cycle") == pytest.approx(expected)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_warmup_rises_linearly_to_the_peak(params: Params, name: str) -> None:
    rates = rates_of(params, name, warmup=1)
    assert rates[:10] == pytest.approx([PEAK * (step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[10] == pytest.approx(PEAK)
