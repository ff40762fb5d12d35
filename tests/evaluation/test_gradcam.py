from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from phototag.evaluation.gradcam import _find_pooled_maps, locate_labels
from phototag.network.familiarity import Familiarity, add_distance, split_network
from phototag.network.model import SideBySide, build_model, find_head, initialize
from phototag.network.params import ModelParams


def locate(network: nn.Module, images: torch.Tensor, labels: list[int]) -> np.ndarray:
    maps = locate_labels(network, images, list(enumerate(labels)))
    assert maps is not None
    return maps


def test_heat_map_marks_the_position_of_the_label() -> None:
    # One feature map of brightness; it raises the logit of label 0 and lowers that of label 1.
    convolution = nn.Conv2d(3, 1, 1, bias=False)
    head = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        convolution.weight.fill_(1)
        head.weight[0], head.weight[1] = 1, -1
    network = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), head)
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, 2, 5] = 255
    maps = locate(network, images, [0, 1])
    assert maps.shape == (2, 8, 8)
    assert maps.dtype == np.float32
    assert np.argwhere(maps[0] > 0.5).tolist() == [[2, 5]]
    assert maps[0].max() == pytest.approx(1)
    assert not maps[1].any()


def test_threads_do_not_mix_their_photos(tiny_spec: ModelParams) -> None:
    torch.manual_seed(0)
    network = build_model(tiny_spec, 3, 16, [0.5] * 3, [0.2] * 3).eval()
    photos = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    expected = [locate(network, photo[None], [1]) for photo in photos]
    ended = Event()

    def tag() -> None:  # as the demo does for another user
        with torch.inference_mode():
            while not ended.is_set():
                network(photos[:1])

    with ThreadPoolExecutor(4) as pool:
        pool.submit(tag)
        try:
            found = list(pool.map(lambda photo: locate(network, photo[None], [1]), photos))
        finally:
            ended.set()
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_network_is_unchanged_afterwards(tiny_spec: ModelParams, batch_norm: bool) -> None:
    spec = tiny_spec.model_copy(update={"batch_norm": batch_norm})
    network = build_model(spec, 3, 16, [0.5] * 3, [0.2] * 3).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    before = network(images)
    maps = locate(network, images, [0, 1, 2, 0])
    assert maps.shape == (4, 16, 16)
    assert ((maps >= 0) & (maps <= 1)).all()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(not module._forward_hooks for module in network.modules())
    assert torch.equal(network(images), before)


@pytest.mark.parametrize("name", ["conv", "squeezenet1_1"])
def test_maps_do_not_depend_on_the_familiarity(tiny_spec: ModelParams, name: str) -> None:
    spec, size = tiny_spec.model_copy(update={"name": name}), 16 if name == "conv" else 64
    network = build_model(spec, 3, size, [0.5] * 3, [0.2] * 3).eval()
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    features = split_network(network, spec)[0](images)
    familiarity = Familiarity(features.detach(), torch.linspace(0, 2, 1001))
    expected = locate(network, images, [0, 2])
    assert np.array_equal(
        locate(add_distance(network, spec, familiarity), images, [0, 2]), expected
    )


# The layer whose output the network pools, according to its forward().
POOLED = {
    "resnet18": "layer4",
    "densenet121": "features",
    "mobilenet_v3_small": "features",
    "efficientnet_b0": "features",
    "convnext_tiny": "features",
    "regnet_x_400mf": "trunk_output",
    "inception_v3": "Mixed_7c",
    "squeezenet1_1": "classifier.2",
    "timm/resnet10t": "layer4",
    "timm/tf_efficientnet_lite0": "bn2",
    "timm/mobilenetv3_small_050": "blocks",
    "timm/convnext_atto": "norm_pre",
}
SMALL = ("resnet18", "timm/tf_efficientnet_lite0")


def build(spec: ModelParams, name: str) -> nn.Sequential:
    if "timm" in name:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    spec = spec.model_copy(update={"name": name})
    return build_model(spec, 3, 128, [0.5] * 3, [0.2] * 3).eval()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SMALL else pytest.mark.slow) for n in POOLED]
)
def test_maps_before_the_pooling_are_used(tiny_spec: ModelParams, name: str) -> None:
    network = build(tiny_spec, name)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    expected = network[1].get_submodule(POOLED[name])
    assert _find_pooled_maps(network[1], network, images) is expected
    assert locate(network, images, [0, 2]).shape == (2, 128, 128)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_linear_head_on_the_mean_gives_class_activation_maps(
    tiny_spec: ModelParams, name: str
) -> None:
    network = build(tiny_spec, name)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    outputs: list[torch.Tensor] = []
    layer = network[1].get_submodule(POOLED[name])
    layer.register_forward_hook(lambda module, given, output: outputs.append(output))
    head = find_head(network)
    with torch.no_grad():
        network(images)
        # Zhou et al. (2016): the maps, weighted by the head's weights of their means.
        cam = (head.weight[[0, 2], :, None, None] * outputs[0]).sum(dim=1, keepdim=True)
        cam = nn.functional.interpolate(cam, (128, 128), mode="bilinear").clamp(min=0)
        cam /= cam.amax(dim=(2, 3), keepdim=True).clamp(min=1e-30)
    np.testing.assert_allclose(locate(network, images, [0, 2]), cam[:, 0], atol=1e-3)


def test_maps_of_several_backbones_are_added(tiny_spec: ModelParams) -> None:
    network = build(tiny_spec, "resnet18+squeezenet1_1")
    images = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    both, head, joined = locate(network, images, [1]), find_head(network), network[1]
    assert isinstance(joined, SideBySide)
    with torch.no_grad():
        head.weight[:, 512:] = 0  # ignore the second backbone
    first = locate(network, images, [1])
    assert not np.allclose(both, first)
    alone = nn.Linear(512, 3)
    alone.load_state_dict({"weight": head.weight[:, :512], "bias": head.bias})
    expected = locate(nn.Sequential(*joined.parts[0].children(), alone).eval(), images, [1])
    np.testing.assert_allclose(first, expected, atol=1e-4)


def test_several_labels_of_a_photo_have_the_maps_of_single_labels(tiny_spec: ModelParams) -> None:
    torch.manual_seed(0)
    network = build_model(tiny_spec, 3, 16, [0.5] * 3, [0.2] * 3).eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    pairs = [(2, 1), (0, 0), (2, 0), (0, 2)]  # no label of the second photo
    maps = locate_labels(network, images, pairs)
    assert maps is not None
    for found, (photo, label) in zip(maps, pairs, strict=True):
        np.testing.assert_allclose(found, locate(network, images[[photo]], [label])[0], atol=1e-5)
    small = locate_labels(network, images, pairs, side=8)
    assert small is not None
    assert small.shape == (4, 8, 8)


@pytest.mark.parametrize("name", ["vit_b_32", "timm/mixer_s32_224"])
def test_networks_without_positional_maps_return_none(tiny_spec: ModelParams, name: str) -> None:
    network = build(tiny_spec, name)
    images = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    assert locate_labels(network, images, [(0, 0)]) is None


def test_maps_of_a_residual_unit_include_the_skip_connection(tiny_spec: ModelParams) -> None:
    block = tiny_spec.conv[-1].model_copy(update={"residual": 1})
    spec = tiny_spec.model_copy(update={"conv": (*tiny_spec.conv[:-1], block)})
    network = build_model(spec, 3, 16, [0.5] * 3, [0.2] * 3).eval()
    initialize(network, spec, torch.full((3,), 0.2))  # the unit adds 0 before training
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    # The output of the last convolution is all 0.
    assert locate(network, images, [0, 1, 2, 0]).any()
