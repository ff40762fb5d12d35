"""Cached features: the outputs of frozen backbones, computed once for all photos."""

import io
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.lib import format as npy
from torch import Tensor, nn
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import content_key, remove_stale, replace_file
from phototag.base.parallel import Backend, run_in_order
from phototag.network.backbones import sketch_backbone
from phototag.network.inference import pick_device
from phototag.network.model import Standardize, build_backbones
from phototag.network.params import Pairs, Weights, pair_backbones
from phototag.network.runtime import accelerate, keep_freed_memory

BATCH = 32  # photos; larger batches do not fit into the caches of a CPU and are slower
CHUNK = 4096  # rows of features read at a time
PART = ".part"  # suffix of unfinished features
PROBES = 4  # photos whose cached features are compared with new ones before training


def embed_photos(
    name: str,
    weights: Weights,
    images: Path,
    path: Path,
    unfinished: Path,
    backend: Backend = "sequential",
    n_jobs: int = -1,
) -> int:
    """Write the features of all photos to a .npy file, float32 [num_images, width].

    Batches are appended to `unfinished`, which becomes `path` at the end. A killed run resumes
    after the last complete batch of that file, and ends with the same bytes.

    Args:
        name: `model.name`.
        weights: `model.weights`.
        images: File of the packed array, uint8 [num_images, size, size, 3].
        path: File to write.
        unfinished: File of unfinished features; its name identifies backbones and photos.
        backend: Backend of `run_in_order`; each worker loads the backbones once.
        n_jobs: Number of workers; -1 starts one per core.

    Returns:
        Number of photos that a killed run had already computed.

    Raises:
        InputError: There is no such backbone, or it cannot take photos of this size.
    """
    num_images, size = np.load(images, mmap_mode="r").shape[:2]
    width = sum(sketch_backbone(*pair, size).width for pair in pair_backbones(name, weights))
    header = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": (num_images, width)}
    npy.write_array_header_1_0(header, description)
    start = len(header.getvalue())
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    # A killed `dvc repro` may leave its stage running. Two processes would append to one file.
    with FileLock(unfinished.parent / "lock"), unfinished.open("ab") as file:
        if file.tell() < start:
            file.truncate(0)
            file.write(header.getvalue())
        # Only whole batches are kept: the last digits of a sum may depend on the batch.
        done = (file.tell() - start) // (BATCH * width * 4) * BATCH
        file.truncate(start + done * width * 4)
        file.seek(0, io.SEEK_END)
        bar = tqdm(total=num_images, initial=done, desc="embed", unit="image", disable=None)
        batches = range(done, num_images, BATCH)
        work = partial(_embed_batch, name, weights, images)
        for features in run_in_order(work, batches, backend, n_jobs):
            file.write(features.astype("<f4").tobytes())
            file.flush()
            bar.update(len(features))
        bar.close()
        # On another disk, moving is copying, which a kill may cut short.
        with replace_file(path) as temporary:
            shutil.move(unfinished, temporary)
    remove_stale(unfinished.parent.glob(f"*{PART}"))
    return int(done)


def _embed_batch(name: str, weights: Weights, images: Path, first: int) -> np.ndarray:
    network, photos = _load(name, weights, images)
    return _compute(network, photos[first : first + BATCH], pick_device())


@cache
def _load(name: str, weights: Weights, images: Path) -> tuple[nn.Module, np.ndarray]:
    """Load backbones and photos, once per worker."""
    keep_freed_memory()
    photos, device = np.load(images, mmap_mode="r"), pick_device()
    backbones = build_backbones(name, weights, photos.shape[1]).eval().to(device)
    return accelerate(backbones, _to_tensor(photos[:2], device)), photos


def _to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2)


@torch.inference_mode()
def _compute(backbones: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    features: Tensor = backbones(_to_tensor(images, device))
    return features.float().cpu().numpy()


def features_key(pairs: Pairs, files: list[Path], images: Path) -> str:
    """Return a key of unfinished features: a hash of backbones, weights, code and photos.

    The photos count by size and modification time of their file, because reading them takes long.
    """
    state = images.stat()
    code = sorted(Path(__file__).parent.glob("*.py"))
    versions = [torch.__version__, torch.get_num_threads()]
    return content_key([*pairs, state.st_size, state.st_mtime_ns, *versions], [*files, *code])


def read_features(path: Path, backbones: nn.Module, images: np.ndarray) -> np.ndarray:
    """Read cached features, memory-mapped, and compare those of a few photos with new ones.

    Args:
        path: File written by `embed_photos`, float32 [num_images, width].
        backbones: Normalisation and backbones, `build_model(...)[:2]`.
        images: The packed array, uint8 [num_images, size, size, 3].

    Raises:
        InputError: The file is missing, or holds the features of other photos, sizes or weights.
    """
    try:
        features: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        raise InputError(f"{path} is missing or damaged: run `dvc repro embed`") from None
    rows = np.linspace(0, len(images) - 1, PROBES).astype(int)
    # The backbones' own device: with several processes, each has another GPU.
    device = next(backbones.buffers()).device
    expected = _compute(backbones.eval(), images[rows], device)
    if features.shape != (len(images), expected.shape[1]) or not np.allclose(
        features[rows], expected, rtol=0, atol=0.01 * float(np.abs(expected).max())
    ):
        raise InputError(
            f"{path} holds the features of other photos or of other weights: run "
            "`dvc repro --force embed`"
        )
    return features


@torch.no_grad()
def standardize_features(layer: nn.Module, features: np.ndarray, rows: np.ndarray) -> None:
    """Set mean and standard deviation of a `Standardize` layer to those of the given rows."""
    assert isinstance(layer, Standardize)
    chunks = np.array_split(rows, range(CHUNK, len(rows), CHUNK))
    mean = sum(features[chunk].sum(axis=0, dtype=np.float64) for chunk in chunks) / len(rows)
    variance = sum(((features[chunk] - mean) ** 2).sum(axis=0) for chunk in chunks) / len(rows)
    std = np.sqrt(variance)
    layer.mean.copy_(torch.from_numpy(mean))
    # A constant feature has std 0; dividing by 1 keeps it at 0.
    layer.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
