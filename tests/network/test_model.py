from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from phototag.base.errors import InputError
from phototag.network.model import Normalize, Residual, build_model, find_head, initialize
from phototag.network.params import ModelParams
from phototag.schema.params import Params

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
RESNET: dict[str, Any] = {
    "name": "resnet18",
    "init": "he",
    "conv": [{"out": 8, "kernel": 3}],
    "linear": [],
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_default_network_is_the_reports(shipped_params: Params) -> None:
    model = build_model(shipped_params.model, 14, 128, MEAN, STD)
    assert count(model) == 3_180_288
    flatten = next(i for i, layer in enumerate(model) if isinstance(layer, nn.Flatten))
    images = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    assert model[: flatten + 1](images).shape == (2, 900)
    assert model(images).shape == (2, 14)


def test_network_of_the_reports_code_has_its_parameter_count() -> None:
    conv = [{"out": 20, "kernel": 3, "pool": 2}, {"out": 40, "kernel": 3, "pool": 2}]
    conv += [{"out": 20, "kernel": 1}, {"out": 50, "kernel": 5, "pool": 2, "pool_stride": 1}]
    conv += [{"out": 100, "kernel": 7, "pool": 2, "pool_stride": 1}]
    spec = ModelParams.model_validate({"init": "he", "conv": conv, "linear": [2048, 512]})
    with torch.device("meta"):
        model = build_model(spec, 14, 128, MEAN, STD)
    first = next(layer for layer in model if isinstance(layer, nn.Linear))
    assert first.in_features == 32_400
    assert count(model) == 3_180_288 + (32_400 - 900) * 2048


@pytest.mark.parametrize("block", [{"kernel": 99}, {"kernel": 1, "pool": 60}])
def test_feature_map_that_shrinks_to_nothing_is_refused_by_block(block: dict[str, Any]) -> None:
    conv = [{"out": 8, "kernel": 3, "pool": 2}, {"out": 4, **block}]
    spec = ModelParams.model_validate({"init": "he", "conv": conv, "linear": []})
    with pytest.raises(InputError, match=r"model\.conv\.1: .* 15 x 15 pixels"):
        build_model(spec, 3, 32, MEAN, STD)


def test_he_initialisation_starts_at_label_frequencies(shipped_params: Params) -> None:
    torch.manual_seed(0)
    model = build_model(shipped_params.model, 3, 128, MEAN, STD)
    prior = torch.tensor([0.01, 0.3, 0.0])
    initialize(model, shipped_params.model, prior)
    head = model[-1]
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head.bias.sigmoid(), torch.tensor([0.01, 0.3, 1e-4]))
    conv = model[1]
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_file_is_loaded_except_for_its_head(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.manual_seed(1)
    trained = models.resnet18(num_classes=7).state_dict()
    torch.save(trained, path) if suffix == ".pt" else save_file(trained, path)
    values = RESNET | {"weights": str(path)}
    spec = ModelParams.model_validate(values)
    model = build_model(spec, 5, 64, MEAN, STD)
    initialize(model, spec, torch.full((5,), 0.2))
    for key, value in model[1].state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, trained[key]), key
    other = spec.model_copy(update={"name": "resnet50"})
    with pytest.raises(InputError, match=r"does not fit resnet50 .* instead of"):
        initialize(build_model(other, 5, 64, MEAN, STD), other, torch.full((5,), 0.2))


def test_batch_norm_and_dropout_are_in_their_places(shipped_params: Params) -> None:
    spec = shipped_params.model.model_copy(update={"batch_norm": True, "dropout": 0.5})
    names = [type(layer).__name__ for layer in build_model(spec, 14, 128, MEAN, STD)]
    assert names[:5] == ["Normalize", "Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    assert names[-8:] == ["Dropout", "Linear", "ReLU"] * 2 + ["Dropout", "Linear"]


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("first", [(), ({"out": 7, "kernel": 3, "padding": 1},)])
def test_strided_pointwise_convolution_trains(first: tuple[Any, ...], stride: int) -> None:
    # oneDNN's gradient ends the process or is wrong; the reference is computed without oneDNN.
    conv = [*first, {"out": 48, "kernel": 1, "stride": stride}]
    spec = ModelParams.model_validate({"init": "he", "conv": conv, "linear": []})
    torch.manual_seed(0)
    model = build_model(spec, 2, 64, [0.5] * 3, [0.2] * 3)
    plain = nn.Sequential(Normalize([0.5] * 3, [0.2] * 3))
    channels = 3
    for block in spec.conv:
        plain.append(
            nn.Conv2d(channels, block.out, block.kernel, block.stride, padding=block.padding)
        )
        if block.pool > 1:
            plain.append(nn.MaxPool2d(block.pool))
        plain.append(nn.ReLU())
        channels = block.out
    plain.extend([nn.Flatten(), nn.Linear(find_head(model).in_features, 2)])
    plain.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    model(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    with torch.backends.mkldnn.flags(enabled=False):
        plain(images).square().sum().backward()
    for ours, reference in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-3, atol=1e-3)


def test_normalize_matches_numpy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8)
    expected = (pixels / 255 - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
    out = Normalize(MEAN, STD)(torch.from_numpy(pixels))
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)
    assert torch.isfinite(Normalize([0.0] * 3, [0.0] * 3)(torch.from_numpy(pixels))).all()


def residual_spec(**changes: Any) -> ModelParams:
    blocks = [{"out": 8, "kernel": 3, "padding": 1, "pool": 2, "residual": 1}]
    given = {"init": "he", "batch_norm": True, "conv": blocks, "linear": [], **changes}
    return ModelParams.model_validate(given)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_residual_units_start_as_identity(batch_norm: bool) -> None:
    torch.manual_seed(0)
    spec = residual_spec(batch_norm=batch_norm)
    model = build_model(spec, 3, 16, MEAN, STD)
    initialize(model, spec, torch.tensor([0.1, 0.2, 0.3]))
    (unit,) = (layer for layer in model if isinstance(layer, Residual))
    maps = torch.rand(2, 8, 8, 8)
    torch.testing.assert_close(unit(maps), maps)
    # What is added is the branch's output, before the last ReLU.
    nn.init.ones_(list(unit.parameters())[-2])
    torch.testing.assert_close(unit(maps), (maps + unit.branch(maps)).clamp(min=0))
    assert not torch.equal(unit(maps), maps)


@pytest.mark.parametrize(("name", "reduce"), [("mean", Tensor.mean), ("max", Tensor.amax)])
def test_global_pool_leaves_one_value_per_feature_map(name: str, reduce: Any) -> None:
    model = build_model(residual_spec(global_pool=name), 3, 16, MEAN, STD).eval()
    assert find_head(model).in_features == 8
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    maps = model[:-3](images)
    torch.testing.assert_close(model(images), model[-1](reduce(maps, (2, 3))))
