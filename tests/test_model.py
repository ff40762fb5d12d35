from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phototag.errors import InputError
from phototag.model import Normalize, build_model, init_he
from phototag.params import ModelParams, Params

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_shipped_network_is_the_reports(shipped_params: Params) -> None:
    model = build_model(shipped_params.model, 14, 128, MEAN, STD)
    assert count(model) == 3_180_288
    flatten = next(i for i, layer in enumerate(model) if isinstance(layer, nn.Flatten))
    images = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    assert model[: flatten + 1](images).shape == (2, 900)
    assert model(images).shape == (2, 14)


def test_the_reports_own_code_is_one_override_away() -> None:
    conv = [{"out": 20, "kernel": 3, "pool": 2}, {"out": 40, "kernel": 3, "pool": 2}]
    conv += [{"out": 20, "kernel": 1}, {"out": 50, "kernel": 5, "pool": 2, "pool_stride": 1}]
    conv += [{"out": 100, "kernel": 7, "pool": 2, "pool_stride": 1}]
    spec = ModelParams.model_validate({"init": "he", "conv": conv, "linear": [2048, 512]})
    with torch.device("meta"):
        model = build_model(spec, 14, 128, MEAN, STD)
    first = next(layer for layer in model if isinstance(layer, nn.Linear))
    assert first.in_features == 32_400
    assert count(model) == 3_180_288 + (32_400 - 900) * 2048


def test_pool_before_relu_is_the_same_function(shipped_params: Params) -> None:
    torch.manual_seed(0)
    model = build_model(shipped_params.model, 14, 128, MEAN, STD)
    layers = list(model)
    for index, layer in enumerate(layers[:-1]):
        if isinstance(layer, nn.MaxPool2d):
            layers[index], layers[index + 1] = nn.ReLU(), layer
    other = nn.Sequential(*layers)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    gradients = []
    for network in (model, other):
        network.zero_grad()
        network(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(model(images), other(images))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("block", [{"kernel": 99}, {"kernel": 1, "pool": 60}])
def test_a_map_that_shrinks_to_nothing_names_the_layer(block: dict[str, Any]) -> None:
    conv = [{"out": 8, "kernel": 3, "pool": 2}, {"out": 4, **block}]
    spec = ModelParams.model_validate({"init": "he", "conv": conv, "linear": []})
    with pytest.raises(InputError, match=r"model\.conv\.1 .* 8 x 15 x 15"):
        build_model(spec, 3, 32, MEAN, STD)


def test_he_starts_at_the_prior(shipped_params: Params) -> None:
    torch.manual_seed(0)
    model = build_model(shipped_params.model, 3, 128, MEAN, STD)
    prior = torch.tensor([0.01, 0.3, 0.0])
    init_he(model, prior)
    head = model[-1]
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head.bias.sigmoid(), torch.tensor([0.01, 0.3, 1e-4]))
    conv = model[1]
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)


def test_normalize_equals_numpy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8)
    expected = (pixels / 255 - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
    out = Normalize(MEAN, STD)(torch.from_numpy(pixels))
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)
    assert torch.isfinite(Normalize([0.0] * 3, [0.0] * 3)(torch.from_numpy(pixels))).all()
