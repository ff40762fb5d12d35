"""Cached features: the outputs of frozen backbones, computed once for each photo."""

import io
import shutil
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor, nn
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import content_key, remove_stale, replace_file, report_failed_write
from phototag.base.parallel import Backend, run_in_order
from phototag.base.processes import hold_lock
from phototag.network.backbones import sketch_backbone
from phototag.network.inference import pick_device
from phototag.network.model import Standardize, build_backbones
from phototag.network.params import Pairs
from phototag.network.pretrained import list_weights_files
from phototag.network.runtime import accelerate, keep_freed_memory

BATCH = 32  # number of photos; larger batches do not fit into the CPU caches and are slower
CHUNK = 4096  # number of photos whose features are read at a time
PART = ".part"  # suffix of files that contain the features of only some photos
PROBES = 4  # number of photos whose cached features are checked by recomputing them


def embed_photos(
    pairs: Pairs,
    images: Path,
    path: Path,
    unfinished: Path,
    backend: Backend = "sequential",
    n_jobs: int = -1,
) -> int:
    """Compute the features of all photos and write them to a file, float32 [num_images, width].

    Batches are appended to the file `unfinished`, which is moved to `path` at the end. If the
    process is killed, the next call resumes after the last complete batch and writes the same bytes
    as an uninterrupted call. Use a name of `unfinished` that is unique to these backbones and
    photos, such as one that contains `features_key`.

    `images` is the file with the packed array, uint8 [num_images, size, size, 3]. `backend` and
    `n_jobs` are those of `run_in_order`. Each worker loads the backbones once.

    Returns:
        Number of photos whose features an interrupted call had already computed.

    Raises:
        InputError: There is no such backbone, it does not support photos of this size, its features
            are not finite, or the disk is full.
    """
    num_images, size = np.load(images, mmap_mode="r").shape[:2]
    width = sum(sketch_backbone(*pair, size).width for pair in pairs)
    header = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": (num_images, width)}
    npy.write_array_header_1_0(header, description)
    start = len(header.getvalue())
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    # Experiments with the same backbones append to the same file, so only one may run at a time.
    with (
        report_failed_write(unfinished),
        hold_lock(unfinished.parent / "lock", "computes features for this project"),
        unfinished.open("ab") as file,
    ):
        if file.tell() < start:
            file.truncate(0)
            file.write(header.getvalue())
        # Drop an incomplete batch: how photos are batched can change the last digits of features.
        done = (file.tell() - start) // (BATCH * width * 4) * BATCH
        file.truncate(start + done * width * 4)
        file.seek(0, io.SEEK_END)
        bar = tqdm(total=num_images, initial=done, desc="embed", unit="image", disable=None)
        batches = range(done, num_images, BATCH)
        work = partial(_embed_batch, pairs, images, unfinished.name)
        for features in run_in_order(work, batches, backend, n_jobs):
            if not np.isfinite(features).all():
                raise InputError(
                    f"model.weights: the features of {dict(pairs)} contain NaN or infinite values: "
                    "choose other weights"
                )
            file.write(features.astype("<f4").tobytes())
            file.flush()
            bar.update(len(features))
        bar.close()
        # If `path` is on another disk, the file is copied: never leave an incomplete copy there.
        with replace_file(path) as temporary:
            shutil.move(unfinished, temporary)
    remove_stale(unfinished.parent.glob(f"*{PART}"))
    return int(done)


def _embed_batch(pairs: Pairs, images: Path, key: str, first: int) -> np.ndarray:
    network, photos = _load(pairs, images, key)
    return _compute(network, photos[first : first + BATCH], pick_device())


@lru_cache(maxsize=1)
def _load(pairs: Pairs, images: Path, _key: str) -> tuple[nn.Module, np.ndarray]:
    """Return the backbones and the photos; the cache makes each worker load them only once.

    `_key` is part of the cache key: a cluster's workers outlive the stage, and files can change.
    """
    keep_freed_memory()
    photos, device = np.load(images, mmap_mode="r"), pick_device()
    backbones = build_backbones(pairs, photos.shape[1]).eval().to(device)
    return accelerate(backbones, _to_tensor(photos[:2], device)), photos


def _to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2)


@torch.inference_mode()
def _compute(backbones: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    features: Tensor = backbones(_to_tensor(images, device))
    return features.float().cpu().numpy()


def features_key(pairs: Pairs, images: Path) -> str:
    """Return a hash of the backbones, weights, code and photos, to name a file of features.

    Of `images`, only the size and modification time are hashed, because hashing photos is slow.
    """
    state = images.stat()
    code = sorted(Path(__file__).parent.glob("*.py"))
    versions = [torch.__version__, torch.get_num_threads()]
    files = [*list_weights_files(pairs), *code]
    return content_key([*pairs, state.st_size, state.st_mtime_ns, *versions], files)


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
