"""Enlarging of small photos, and pooling and transform of the features of backbones."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from phototag.base.errors import InputError
from phototag.evaluation.gradcam import locate_labels
from phototag.network import model, runtime
from phototag.network.backbones import build_backbone
from phototag.network.model import Enlarge, SideBySide, build_backbones, build_model, initialize
from phototag.network.params import FeatureSpec, ModelParams
from phototag.network.pooling import PowerTransform
from phototag.network.runtime import Session, accelerate
from phototag.network.weights import Metadata, load_model, save_model

POOLS = ("mean", "max", "mean-max")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def make_spec(**changes: Any) -> ModelParams:
    blocks = [{"out": 8, "kernel": 3, "pool": 2}]
    return ModelParams.model_validate({"init": "he", "conv": blocks, "linear": [], **changes})


def make_photos(size: int, number: int = 3) -> Tensor:
    """Return photos with smooth parts and with black and white pixels next to each other."""
    rng = np.random.default_rng(0)
    noise = 255 * rng.integers(0, 2, (number, size, size, 3), np.uint8)
    smooth = np.linspace(0, 255, size).astype(np.uint8)[:, None, None]
    return torch.from_numpy(np.where(rng.random(noise.shape) < 0.5, noise, smooth)).permute(
        0, 3, 1, 2
    )


def make_network(name: str, size: int, pool: Any) -> Any:
    """Return the features of a backbone with random weights and batch norm statistics."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build_backbone(name, None, size, pool).features.eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            layer.running_mean.uniform_(-0.1, 0.1)
    return network


@pytest.mark.parametrize("resampling", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("size", [16, 23, 32])
def test_enlarging_matches_pillow_up_to_rounding(
    monkeypatch: pytest.MonkeyPatch, resampling: Image.Resampling, size: int
) -> None:
    monkeypatch.setattr(model, "INTERPOLATION", resampling)
    photos = make_photos(15)
    expected = np.stack(
        [
            np.asarray(Image.fromarray(photo.numpy()).resize((size, size), resampling))
            for photo in photos.permute(0, 2, 3, 1).contiguous()
        ]
    )
    found = Enlarge(15, size)(photos).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=1.5)


@pytest.mark.parametrize(
    "name", ["conv", "squeezenet1_1", "shufflenet_v2_x0_5+timm/mobilenetv3_small_050"]
)
@pytest.mark.parametrize("features", [{}, {"global_pool": "mean-max", "power": 0.5}])
def test_network_that_enlarges_gives_the_logits_of_enlarged_photos(
    tmp_path: Path, name: str, features: dict[str, Any]
) -> None:
    if "timm/" in name:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    spec = make_spec(name=name, **features)
    network = build_model(spec, 3, 40, MEAN, STD, 64).eval()
    plain = build_model(spec, 3, 64, MEAN, STD).eval()
    state = {re.sub(r"^0\.1\.", "0.", key): value for key, value in network.state_dict().items()}
    del state["0.0.weights"]
    plain.load_state_dict(state)
    photos = make_photos(40)
    with torch.inference_mode():
        logits = network(photos)
        torch.testing.assert_close(logits, plain(Enlarge(40, 64)(photos)))
    assert logits.std() > 1e-3
    values = spec.model_dump(mode="json")
    metadata = Metadata(["a", "b", "c"], 40, MEAN, STD, values, "key", 1, 0.2, network_size=64)
    save_model(tmp_path / "m", network, metadata)
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "m")[0](photos), logits)


@pytest.mark.parametrize("pool", POOLS)
def test_conv_network_pools_and_transforms_its_maps(pool: str) -> None:
    network = build_model(make_spec(global_pool=pool, power=0.5), 3, 16, MEAN, STD).eval()
    with torch.inference_mode():
        maps = network[:4](make_photos(16)).numpy()
        found = network[:-1](make_photos(16)).numpy()
    parts = {"mean": maps.mean((2, 3)), "max": maps.max((2, 3))}
    expected = np.sqrt(np.concatenate([parts[part] for part in pool.split("-")], axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert network[-1].in_features == expected.shape[1]


# The layer whose output torchvision pools, according to its forward().
LAYERS = {
    "resnet18": "layer4",
    "densenet121": "features",
    "squeezenet1_1": "features",
    "shufflenet_v2_x0_5": "conv5",
    "convnext_tiny": "features",
    "mobilenet_v3_small": "features",
    "inception_v3": "Mixed_7c",
    "regnet_y_400mf": "trunk_output",
    "swin_t": "permute",
    "vit_b_32": "encoder",
    "maxvit_t": "blocks.3",
}


FAST = ("resnet18", "squeezenet1_1", "densenet121")


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        *(("resnet18", pool) for pool in ("mean", "max")),
        pytest.param("vit_b_32", "mean", marks=pytest.mark.slow),
        *((name, "mean-max") for name in FAST),
        *(pytest.param(n, "mean-max", marks=pytest.mark.slow) for n in LAYERS if n not in FAST),
    ],
)
def test_pooling_of_torchvision_networks_matches_numpy(name: str, pool: str) -> None:
    size = {"inception_v3": 128, "maxvit_t": 224}.get(name, 64)
    network = make_network(name, size, pool)
    plain = models.get_model(
        name,
        weights=None,
        **({"image_size": size} if name == "vit_b_32" else {}),
        **({"init_weights": False} if name == "inception_v3" else {}),
    ).eval()
    missing, _ = plain.load_state_dict(network.network.state_dict(), strict=False)
    assert all(key.startswith(("fc", "classifier", "head", "AuxLogits")) for key in missing)
    images, outputs = torch.rand(2, 3, size, size), []
    plain.get_submodule(LAYERS[name]).register_forward_hook(lambda *given: outputs.append(given[2]))
    with torch.inference_mode():
        plain(images)
        found = network(images).numpy()
    maps = outputs[0].numpy().astype(float)
    if name == "densenet121":
        maps = maps.clip(0)
    parts = {"mean": maps[:, 1:].mean(1), "max": maps[:, 1:].max(1), "mean-max": maps[:, 0]}
    if maps.ndim == 4:
        parts = {"mean": maps.mean((2, 3)), "max": maps.max((2, 3))}
    tokens = maps.ndim == 3 and pool == "mean-max"
    expected = [parts[part] for part in (("mean-max", "mean") if tokens else pool.split("-"))]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-4)
    assert found.std() > 1e-3


@pytest.mark.parametrize(
    ("name", "prefix", "summary", "pool"),
    [
        *(("timm/tf_efficientnet_lite0", 0, None, pool) for pool in POOLS),
        *(("timm/vit_tiny_patch16_224", 1, "class token", pool) for pool in POOLS),
        ("timm/mobilenetv3_small_050", 0, None, "mean-max"),
        ("timm/deit_tiny_distilled_patch16_224", 2, "class token", "mean-max"),
        ("timm/vit_tiny_patch16_dinov3_qkvb", 5, "class token", "mean-max"),
        ("timm/vit_pe_core_tiny_patch16_384", 1, "attention", "mean-max"),
        *(
            pytest.param(f"timm/{name}", 0, summary, "mean-max", marks=pytest.mark.slow)
            for name, summary in (
                ("vit_base_patch16_siglip_224", "attention"),
                ("naflexvit_base_patch16_siglip", "attention"),
                ("mixer_s32_224", None),
                ("swin_tiny_patch4_window7_224", None),
            )
        ),
    ],
)
def test_pooling_of_timm_networks_matches_timms_features(
    name: str, prefix: int, summary: str | None, pool: str
) -> None:
    timm = pytest.importorskip("timm")
    size = 224 if "mixer" in name or "swin" in name else 64
    network = make_network(name, size, pool)
    fixed = {"img_size": size} if "patch" in name or "mixer" in name else {}
    fixed = {} if "naflex" in name else fixed
    plain = timm.create_model(name.removeprefix("timm/"), num_classes=0, **fixed).eval()
    plain.load_state_dict(network.network.state_dict())
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        maps, found = plain.forward_features(images), network(images).numpy()
        if summary == "attention":
            first = plain.attn_pool(maps).numpy()
        elif summary:
            first = maps[:, 0].numpy()
    maps = maps.numpy().astype(float)
    if maps.ndim == 3:
        patches = maps[:, prefix:]
    elif "swin" in name:
        patches = maps.reshape(2, -1, maps.shape[3])
    else:
        patches = maps.reshape(2, maps.shape[1], -1).transpose(0, 2, 1)
    parts = {"mean": patches.mean(1), "max": patches.max(1)}
    expected = [parts[part] for part in pool.split("-")]
    if summary and pool == "mean-max":
        expected = [first, parts["mean"]]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-4)
    assert found.std() > 1e-3


def test_network_without_maps_is_refused() -> None:
    pytest.importorskip("timm")
    message = r"model\.global_pool: timm/crossvit_tiny_240 cannot be pooled .* is list\): set model"
    with pytest.raises(InputError, match=message):
        build_backbone("timm/crossvit_tiny_240", None, 240, "mean")
    assert build_backbone("timm/crossvit_tiny_240", None, 240, "none", 0.5).width == 288


def test_power_transform_matches_numpy_and_has_finite_gradients() -> None:
    values = torch.tensor([-4.0, -0.25, 0.0, 1e-9, 0.01, 1.0, 9.0], requires_grad=True)
    found = PowerTransform(0.5)(values)
    array = values.detach().numpy()
    np.testing.assert_allclose(found.detach(), np.sign(array) * np.abs(array) ** 0.5, atol=5e-4)
    found.sum().backward()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
    np.testing.assert_allclose(values.grad[[0, 1, 5, 6]], [0.25, 1, 0.5, 1 / 6], rtol=1e-4)


def test_joined_backbones_are_pooled_one_by_one() -> None:
    spec = make_spec(name="squeezenet1_1+resnet18", global_pool="mean-max", power=0.5)
    torch.manual_seed(0)
    network = build_model(spec, 3, 32, MEAN, STD, 64).eval()
    joined, photos = network[1], make_photos(32)
    assert isinstance(joined, SideBySide)
    with torch.inference_mode():
        features = network[:2](photos)
        parts = [part(Enlarge(32, 64)(photos)) for part in joined.parts]
    assert [part.shape[1] for part in parts] == [1024, 1024]
    torch.testing.assert_close(features, torch.cat(parts, dim=1))


@pytest.mark.parametrize(
    "name",
    ["squeezenet1_1", "timm/tf_efficientnet_lite0", "timm/vit_pe_core_tiny_patch16_384"],
)
def test_onnx_runtime_gives_the_same_pooled_features(name: str) -> None:
    for package in runtime.PACKAGES:
        pytest.importorskip(package)
    if "timm" in name:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    spec = FeatureSpec(((name, None),), 64, "mean-max", 0.5)
    network, photos = build_backbones(spec, 40).eval(), make_photos(40, 5)
    fast = accelerate(network, photos[:1])
    assert isinstance(fast, Session)
    with torch.inference_mode():
        np.testing.assert_allclose(fast(photos), network(photos), atol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("vit_b_32", marks=pytest.mark.slow)])
def test_weights_file_fits_a_pooled_network_of_another_size(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    trained = models.get_model(name, weights=None).state_dict()
    torch.save(trained, tmp_path / "w.pth")
    weights = str(tmp_path / "w.pth")
    spec = make_spec(name=name, weights=weights, global_pool="mean-max", freeze=True)
    network = build_model(spec, 3, 64, MEAN, STD)
    initialize(network, spec, torch.full((3,), 0.2))
    state = network[1].state_dict()
    same = [
        key
        for key, value in trained.items()
        if torch.equal(value, state.get(f"network.{key}", torch.zeros(0)))
    ]
    changed = {"encoder.pos_embedding"} if name == "vit_b_32" else set()  # interpolated
    assert {key.removeprefix("network.") for key in state} - set(same) == changed


@pytest.mark.parametrize("name", ["conv", "resnet18", "squeezenet1_1+resnet18"])
def test_heat_maps_of_pooled_features_have_the_side_of_the_photos(name: str) -> None:
    torch.manual_seed(0)
    spec = make_spec(name=name, global_pool="mean-max", power=0.5)
    network = build_model(spec, 3, 48, MEAN, STD, 96).eval()
    maps = locate_labels(network, make_photos(48), [(0, 0), (1, 1), (2, 2)])
    assert maps is not None
    assert maps.shape == (3, 48, 48)
    assert np.isfinite(maps).all()
    assert maps.max() == pytest.approx(1)


def test_file_of_a_backbone_without_new_keys_keeps_the_pooling_of_the_library(
    tmp_path: Path,
) -> None:
    """Before the key `power` existed, backbones ignored `global_pool`."""
    torch.manual_seed(0)
    network = build_model(make_spec(name="squeezenet1_1"), 3, 64, MEAN, STD).eval()
    values = make_spec(name="squeezenet1_1", global_pool="max").model_dump(mode="json")
    del values["power"]
    metadata = Metadata(["a", "b", "c"], 64, MEAN, STD, values, "key", 1, 0.2)
    assert asdict(metadata)["network_size"] == 0
    save_model(tmp_path / "m", network, metadata)
    photos = make_photos(64)
    assert torch.equal(load_model(tmp_path / "m")[0](photos), network(photos))
