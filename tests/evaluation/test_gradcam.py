import numpy as np
import pytest
import torch
from torch import nn

from phototag.base.params import ModelParams
from phototag.evaluation.gradcam import locate_labels
from phototag.network.model import build_model, initialize


def test_heat_lies_where_the_label_is() -> None:
    # One map of brightness; label 0 speaks for it, label 1 against it.
    convolution = nn.Conv2d(3, 1, 1, bias=False)
    head = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        convolution.weight.fill_(1)
        head.weight[0], head.weight[1] = 1, -1
    network = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), head)
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, 2, 5] = 255
    maps = locate_labels(network, images, torch.tensor([0, 1]))
    assert maps.shape == (2, 8, 8)
    assert maps.dtype == np.float32
    assert np.argwhere(maps[0] > 0.5).tolist() == [[2, 5]]
    assert maps[0].max() == pytest.approx(1)
    assert not maps[1].any()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_any_network_and_no_trace_left(tiny_spec: ModelParams, batch_norm: bool) -> None:
    spec = tiny_spec.model_copy(update={"batch_norm": batch_norm})
    network = build_model(spec, 3, 16, [0.5] * 3, [0.2] * 3).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    before = network(images)
    maps = locate_labels(network, images, torch.tensor([0, 1, 2, 0]))
    assert maps.shape == (4, 16, 16)
    assert ((maps >= 0) & (maps <= 1)).all()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(not module._forward_hooks for module in network.modules())
    assert torch.equal(network(images), before)


def test_torchvision_networks_have_maps_too(tiny_spec: ModelParams) -> None:
    spec = tiny_spec.model_copy(update={"name": "resnet18"})
    network = build_model(spec, 3, 64, [0.5] * 3, [0.2] * 3).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert locate_labels(network, images, torch.tensor([0, 2])).any()


def test_a_residual_units_maps_come_from_behind_its_sum(tiny_spec: ModelParams) -> None:
    block = tiny_spec.conv[-1].model_copy(update={"residual": 1})
    spec = tiny_spec.model_copy(update={"conv": (*tiny_spec.conv[:-1], block)})
    network = build_model(spec, 3, 16, [0.5] * 3, [0.2] * 3).eval()
    initialize(network, spec, torch.full((3,), 0.2))  # the unit adds nothing yet
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    # The last convolution's own maps are all 0.
    assert locate_labels(network, images, torch.tensor([0, 1, 2, 0])).any()
