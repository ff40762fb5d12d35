import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phototag.base.errors import InputError
from phototag.network import features
from phototag.network.features import (
    embed_photos,
    features_key,
    pick_runtime,
    read_features,
    standardize_features,
)
from phototag.network.model import Normalize, Standardize

PHOTOS = np.random.default_rng(0).integers(0, 256, (75, 16, 16, 3), np.uint8)


@pytest.fixture
def backbones(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """A small network with a batch norm, which PyTorch runs."""
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    return make_backbones()


def make_backbones(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 12, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), network).eval()


def expect(backbones: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        batch = torch.from_numpy(PHOTOS).permute(0, 3, 1, 2)
        return np.asarray(backbones(batch).numpy())


def test_every_photos_features_are_kept_in_order(tmp_path: Path, backbones: nn.Sequential) -> None:
    path = tmp_path / "data/features.npy"
    embed_photos(backbones.train(), PHOTOS, path, tmp_path / "state/key")
    found = np.load(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expect(backbones.eval()), atol=1e-5)
    assert not (tmp_path / "state/key").exists()


@pytest.mark.parametrize("cut", [0, 3, 200, 128 + 32 * 48 - 1, 128 + 32 * 48 + 5, 128 + 64 * 48])
def test_what_was_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, backbones: nn.Sequential, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    whole, path, state = tmp_path / "whole.npy", tmp_path / "features.npy", tmp_path / "key"
    embed_photos(backbones, PHOTOS, whole, state)
    state.write_bytes(whole.read_bytes()[:cut])  # as a kill at any byte leaves it
    computed: list[int] = []
    pick = pick_runtime

    def watch(backbones: nn.Module, examples: np.ndarray) -> Any:
        run = pick(backbones, examples)

        def count(images: np.ndarray) -> np.ndarray:
            computed.append(len(images))
            return run(images)

        return count

    monkeypatch.setattr(features, "pick_runtime", watch)
    embed_photos(backbones, PHOTOS, path, state)
    assert path.read_bytes() == whole.read_bytes()
    whole_batches = max(cut - 128, 0) // (32 * 48)
    assert sum(computed[1:]) == len(PHOTOS) - 32 * whole_batches


def test_features_of_others_are_refused(tmp_path: Path, backbones: nn.Sequential) -> None:
    path = tmp_path / "features.npy"
    with pytest.raises(InputError, match=r"features\.npy is missing or damaged: `dvc repro embed`"):
        read_features(path, backbones, PHOTOS)
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"is missing or damaged"):
        read_features(path, backbones, PHOTOS)
    embed_photos(backbones, PHOTOS, path, tmp_path / "key")
    np.testing.assert_array_equal(read_features(path, backbones, PHOTOS), np.load(path))
    for other, photos in (
        (make_backbones(seed=1), PHOTOS),  # other weights
        (backbones, PHOTOS[:-1]),
        (backbones, PHOTOS[::-1]),
        (backbones, np.concatenate([PHOTOS[:, ::2], PHOTOS[:, 1::2]], axis=1)),
    ):
        with pytest.raises(InputError, match=r"of other photos or of other weights: `dvc"):
            read_features(path, other, photos)


def test_the_key_changes_with_weights_and_photos(tmp_path: Path) -> None:
    images, weights = tmp_path / "images.npy", tmp_path / "w.pth"
    np.save(images, PHOTOS)
    weights.write_bytes(b"a")
    keys = {features_key("a", [weights], images), features_key("b", [weights], images)}
    weights.write_bytes(b"b")
    keys.add(features_key("a", [weights], images))
    os.utime(images, (1, 1))
    keys.add(features_key("a", [weights], images))
    assert len(keys) == 4
    assert features_key("a", [weights], images) in keys


def test_features_are_standardised_as_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK", 7)
    rng = np.random.default_rng(0)
    values = rng.normal(1000, rng.uniform(0.1, 5, 6), (50, 6)).astype(np.float32)
    values[:, 3] = 4  # carries nothing
    rows = rng.permutation(50)[:30]
    layer = Standardize(6)
    standardize_features(layer, values, rows)
    given = values[rows].astype(float)
    std = np.where(np.arange(6) == 3, 1, given.std(axis=0))
    expected = (given - given.mean(axis=0)) / std
    np.testing.assert_allclose(layer(torch.from_numpy(values[rows])), expected, atol=1e-2)


@pytest.mark.slow
def test_onnx_runtime_gives_the_same_features() -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    backbones = make_backbones()
    run = pick_runtime(backbones, PHOTOS[:1])
    assert run.__qualname__.startswith("_build_onnx")
    expected = expect(backbones)
    for part in (PHOTOS, PHOTOS[:1], PHOTOS[:33]):
        np.testing.assert_allclose(run(part), expected[: len(part)], atol=1e-4)


def test_a_network_that_onnx_runtime_cannot_run_is_run_by_pytorch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbones = make_backbones()
    monkeypatch.setattr(features, "find_spec", lambda name: True)
    for wrong, note in (
        (lambda images: 1 / 0, "cannot run this network (division by zero)"),
        (lambda images: expect(backbones)[:2] + 1, "is off by"),
        (lambda images: expect(backbones)[:2] * np.nan, "is off by nan"),
    ):
        monkeypatch.setattr(features, "_build_onnx", lambda *given, wrong=wrong: wrong)
        run = pick_runtime(backbones, PHOTOS[:2])
        assert note in capsys.readouterr().err
        np.testing.assert_allclose(run(PHOTOS), expect(backbones), atol=1e-5)
