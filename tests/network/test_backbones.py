from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from phototag.base.errors import InputError
from phototag.network import backbones
from phototag.network.backbones import build_backbone, sketch_backbone
from phototag.network.model import Normalize, SideBySide, build_model, find_head, initialize
from phototag.network.params import ModelParams
from phototag.network.pretrained import _match
from phototag.tracking.recipes import read_recipes, recipe_params
from tests.projects import ROOT

SIZE = 128
# One network of each family; slow tests use all networks.
FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18"),
    *("shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vit_b_32"),
)
TIMM = (
    *("beit_base_patch16_224", "convnext_atto", "crossvit_tiny_240", "cspresnet50"),
    *("deit_tiny_patch16_224", "densenet121", "dla34", "efficientnet_lite0", "fastvit_t8"),
    *("ghostnet_050", "hrnet_w18_small", "levit_128s", "mixer_s32_224", "mobilenetv3_small_050"),
    *("mobilevit_xxs", "nf_regnet_b0", "poolformer_s12", "regnetx_002", "repvgg_a0"),
    *("resnest14d", "resnet10t.c3_in1k", "resnetv2_50", "rexnet_100", "tf_efficientnet_lite0"),
    *("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "xcit_nano_12_p8_224"),
)
# Networks with unusual names, heads or sizes.
PECULIAR = ("densenet121", "inception_v3", "maxvit_t", "mnasnet0_5", "squeezenet1_0", "vit_b_32")
REFUSED = {
    "maxvit_t": r"maxvit_t does not support photos of 128 .* partition size 7.* resize.size to 224",
    "vit_h_14": r"vit_h_14 does not support photos of 128 .* patch size.* resize.size to 518",
    "timm/crossvit_tiny_240": r"tiny_240 does not support photos of 128 .* resize.size to 240",
}
TINY = ("squeezenet1_0", "timm/mobilenetv3_small_050")
ALL = [*FAMILIES, *(f"timm/{name}" for name in TIMM)]


def make_spec(name: str, **changes: Any) -> ModelParams:
    given = {"init": "he", "conv": [{"out": 8, "kernel": 3}], "linear": [], "name": name}
    return ModelParams.model_validate(given | changes)


def sketch(name: str, size: int = SIZE) -> backbones.Backbone | None:
    """Build a network on the meta device, or check that it is refused."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    if name not in REFUSED:
        return sketch_backbone(name, "DEFAULT", size)
    with pytest.raises(InputError, match=REFUSED[name]):
        sketch_backbone(name, "DEFAULT", SIZE)
    return None


def full_state(name: str) -> "OrderedDict[str, torch.Tensor]":
    """Return the state dict of an old file of torchvision: all heads, no counters of batches."""
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    try:
        with torch.device("meta"):
            network = models.get_model(name, weights=None, **options)
    except NotImplementedError:  # regnet
        network = models.get_model(name, weights=None)
    state: OrderedDict[str, torch.Tensor] = network.state_dict()
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
    return state


def check_torchvision(name: str) -> None:
    backbone = sketch(name)
    if backbone is None:
        return
    fitting = _match(name, backbone.network, full_state(name), "a file")
    own = {key for key in backbone.network.state_dict() if "num_batches_tracked" not in key}
    assert own == set(fitting)
    assert not any(
        value.shape[:1] == (1000,) for value in fitting.values()
    )  # the classes of ImageNet
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    assert (backbone.mean, backbone.std) == (transforms.mean, transforms.std)


@pytest.mark.parametrize("name", PECULIAR)
def test_unusual_networks_load_torchvisions_file(name: str) -> None:
    check_torchvision(name)


def is_large(name: str) -> bool:
    """Return whether a network takes long to build."""
    if name.startswith("timm/"):
        return "_base_" in name
    return bool(models.get_model_weights(name).DEFAULT.meta["num_params"] > 45e6)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize(
    "name",
    [name for name in models.list_models(models) if name != "regnet_y_128gf"],  # 2.6 GB
)
def test_torchvision_network_is_built_or_refused(name: str) -> None:
    check_torchvision(name)


@pytest.mark.parametrize("name", ["timm/crossvit_tiny_240", "timm/vit_tiny_patch16_224"])
def test_timm_network_is_built_or_refused(name: str) -> None:
    sketch(name)


@pytest.mark.parametrize("name", TINY)
def test_tiny_networks_train(name: str) -> None:
    take_step(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.soak if is_large(name) else ())
        for name in ALL
        if name not in REFUSED
    ],
)
def test_network_of_each_family_trains(name: str) -> None:
    take_step(name, SIZE)


def take_step(name: str, size: int) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    spec = make_spec(name)
    model = build_model(spec, 5, size, [0.5] * 3, [0.2] * 3)
    initialize(model, spec, torch.full((5,), 0.2))
    head = find_head(model)
    torch.testing.assert_close(head.bias.sigmoid(), torch.full((5,), 0.2))
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    logits = model.train()(images)
    assert logits.shape == (2, 5)
    torch.autograd.backward(nn.functional.softplus(-logits).mean())
    before = head.bias.clone()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(head.bias, before)
    assert all(p.grad is not None for p in model[2:].parameters())
    assert any(p.grad is not None and p.grad.any() for p in model[1].parameters())


def test_several_backbones_have_their_own_normalisation() -> None:
    spec = make_spec("shufflenet_v2_x0_5+squeezenet1_1", weights="DEFAULT")
    torch.manual_seed(0)
    model = build_model(spec, 4, 64, [0.1] * 3, [0.9] * 3).eval()
    joined = model[1]
    assert isinstance(joined, SideBySide)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    parts = [part(images) for part in joined.parts]
    assert [part.shape for part in parts] == [(2, 1024), (2, 512)]
    assert torch.equal(model[:2](images), torch.cat(parts, dim=1))
    imagenet = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for part in joined.parts:
        assert torch.equal(part.get_submodule("0")(images), imagenet(images))


def test_backbone_without_weights_uses_train_statistics() -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    model = build_model(make_spec("squeezenet1_1"), 4, 64, [0.1] * 3, [0.9] * 3)
    assert torch.equal(model[0](images), Normalize([0.1] * 3, [0.9] * 3)(images))


@pytest.mark.parametrize("recipe", ["hub", "hub-large"])
def test_recipe_of_the_hub_has_the_size_and_normalisation_of_timm(recipe: str) -> None:
    timm = pytest.importorskip("timm")
    params = recipe_params(read_recipes(ROOT / "recipes.yaml"), recipe)
    name, size = params["model.name"], params["resize.size"]
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    assert config.license == "apache-2.0"
    expected = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    backbone = sketch_backbone(name, "DEFAULT", size)
    assert expected["input_size"] == (3, size, size)
    assert (tuple(backbone.mean), tuple(backbone.std)) == (expected["mean"], expected["std"])
    assert backbone.width == backbone.network.num_features


def test_unknown_network_is_refused_with_similar_names() -> None:
    with pytest.raises(InputError, match=r"torchvision has no classifier 'resnet19': .*resnet18"):
        build_backbone("resnet19", None, 64)
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"timm has no network 'resnet19': similar .* resnet18"):
        build_backbone("timm/resnet19", None, 64)
    with pytest.raises(
        InputError, match=r"no weights 'best' for resnet18: choose one of .*a1_in1k"
    ):
        build_backbone("timm/resnet18.best", None, 64)


def test_missing_timm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"require timm.* run `make setup-pretrained`"):
        build_backbone("timm/resnet18", None, 64)
