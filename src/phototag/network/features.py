"""Cached features: the outputs of frozen backbones, computed once for each photo."""

from collections.abc import Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.backends.cpu import get_cpu_capability
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import content_key, remove_stale, report_failed_write
from phototag.base.parallel import Backend, run_in_order
from phototag.base.processes import hold_lock
from phototag.network.backbones import required_packages, sketch_backbone
from phototag.network.feature_store import FeatureStore, hash_photos, write_features
from phototag.network.inference import pick_device
from phototag.network.model import Standardize, build_backbones
from phototag.network.params import FeatureSpec
from phototag.network.pretrained import list_weights_files
from phototag.network.runtime import PACKAGES, accelerate, has_onnx_runtime, keep_freed_memory

BATCH = 32  # number of photos; larger batches do not fit into the CPU caches and are slower
CHUNK = 4096  # number of photos whose features are read at a time
PROBES = 4  # number of photos whose cached features are checked by recomputing them


def embed_photos(
    spec: FeatureSpec,
    images: Path,
    path: Path,
    folder: Path,
    backend: Backend = "sequential",
    n_jobs: int = -1,
) -> int:
    """Write the features of all photos to a file, float32 [num_images, width].

    Only the features of photos that are not in the store are computed (see `feature_store`). If the
    process is killed, the next call resumes after the last complete batch. The bytes of the file
    do not depend on what was in the store, because the features of a photo do not depend on the
    other photos in its batch: each batch has `BATCH` photos, the last one after padding. This was
    measured for the backbones of the recipes on CPUs, in ONNX Runtime and in PyTorch, with 1 and 2
    threads: the largest difference was 0. In batches of other sizes, PyTorch's features differ by
    up to 6e-6 (the largest feature is 4.9), and those of ONNX Runtime do not differ.

    `images` is the file with the packed array, uint8 [num_images, size, size, 3]. `folder` is that
    of the store. `backend` and `n_jobs` are those of `run_in_order`. Each worker loads the
    backbones once.

    Returns:
        Number of photos whose features were in the store.

    Raises:
        InputError: There is no such backbone, it does not support photos of this size, its features
            are not finite, or the disk is full.
    """
    packed = np.load(images, mmap_mode="r")
    width = sum(sketch_backbone(name, weights, *spec[1:]).width for name, weights in spec.pairs)
    key = features_key(spec, packed.shape[1])
    photos = hash_photos(packed)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / f"{key}.features"
    # Experiments with the same backbones append to the same file, so only one may run at a time.
    with (
        report_failed_write(stored),
        hold_lock(folder / "lock", "computes features for this project"),
        stored.open("ab+") as file,
    ):
        stored.touch()
        remove_stale(folder.glob("*.features"))
        store = FeatureStore(file, width)
        known = store.load()
        new = {photo: row for row, photo in enumerate(photos) if photo not in known}
        rows = sorted(new.values())
        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        # The weights, the code and the photos can change between calls in the same process.
        work = partial(_embed_batch, spec, images, f"{key} {images.stat().st_mtime_ns}")
        computed = run_in_order(work, batches, backend, n_jobs)
        bar = tqdm(total=len(rows), desc="embed", unit="image", disable=None)
        for batch, features in zip(batches, computed, strict=True):
            if not np.isfinite(features).all():
                raise InputError(
                    f"model.weights: the features of {dict(spec.pairs)} contain NaN or infinite "
                    "values: choose other weights"
                )
            store.append([photos[row] for row in batch], features)
            bar.update(len(features))
        bar.close()
        write_features(path, photos, width, store.load())
    return sum(photo in known for photo in photos)


def _embed_batch(spec: FeatureSpec, images: Path, key: str, rows: Sequence[int]) -> np.ndarray:
    network, photos = _load(spec, images, key)
    padded = [*rows, *[rows[-1]] * (BATCH - len(rows))]
    return _compute(network, photos[padded], pick_device())[: len(rows)]


@lru_cache(maxsize=1)
def _load(spec: FeatureSpec, images: Path, _key: str) -> tuple[nn.Module, np.ndarray]:
    """Return the backbones and the photos; the cache makes each worker load them only once.

    `_key` is part of the cache key: a cluster's workers outlive the stage, and files can change.
    """
    keep_freed_memory()
    photos, device = np.load(images, mmap_mode="r"), pick_device()
    backbones = build_backbones(spec, photos.shape[1]).eval().to(device)
    return accelerate(backbones, _to_tensor(photos[:2], device)), photos


def _to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2)


@torch.inference_mode()
def _compute(backbones: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    features: Tensor = backbones(_to_tensor(images, device))
    return features.float().cpu().numpy()


def features_key(spec: FeatureSpec, size: int) -> str:
    """Return a hash of all that the features of a photo depend on, except for the photo.

    This is a hash of the feature settings, weights, size of the packed photos, code, libraries and
    processor.
    """
    libraries = ["torch", *required_packages(spec.pairs), *(PACKAGES if has_onnx_runtime() else ())]
    versions = [version(library) for library in libraries]
    device = pick_device()
    is_cuda = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if is_cuda else get_cpu_capability()
    settings = [*spec, size, *versions, torch.get_num_threads(), processor]
    code = sorted(Path(__file__).parent.glob("*.py"))
    return content_key(settings, [*list_weights_files(spec.pairs), *code])


def read_features(path: Path, backbones: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the memory-mapped features written by `embed_photos`, after checking a few of them.

    `backbones` are the normalisation and the backbones, `build_model(...)[:2]`. `images` is the
    packed array, uint8 [num_images, size, size, 3].

    Raises:
        InputError: The file is missing or damaged, or recomputed features differ from the cached
            ones. They differ if the file was computed from other photos, sizes or weights.
    """
    try:
        features: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        raise InputError(f"{path} is missing or damaged: run `dvc repro embed`") from None
    rows = np.linspace(0, len(images) - 1, PROBES).astype(int)
    # Each training process has a different GPU, so use the device of the backbones.
    device = next(backbones.buffers()).device
    expected = _compute(backbones.eval(), images[rows], device)
    if features.shape != (len(images), expected.shape[1]) or not np.allclose(
        features[rows], expected, rtol=0, atol=0.01 * float(np.abs(expected).max())
    ):
        raise InputError(
            f"{path} was computed from other photos or with other weights: run "
            "`dvc repro --force --downstream embed`"
        )
    return features


@torch.no_grad()
def standardize_features(layer: nn.Module, features: np.ndarray, rows: np.ndarray) -> None:
    """Set the mean and std of a `Standardize` layer to those of the given rows of features."""
    assert isinstance(layer, Standardize)
    chunks = np.array_split(rows, range(CHUNK, len(rows), CHUNK))
    mean = sum(features[chunk].sum(axis=0, dtype=np.float64) for chunk in chunks) / len(rows)
    variance = sum(((features[chunk] - mean) ** 2).sum(axis=0) for chunk in chunks) / len(rows)
    std = np.sqrt(variance)
    layer.mean.copy_(torch.from_numpy(mean))
    # Divide a constant feature by 1 instead of its std 0, so that it becomes 0.
    layer.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
