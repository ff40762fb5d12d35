"""Features of frozen backbones, computed once for all photos."""

import io
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib import format as npy
from torch import Tensor, nn
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import (
    content_key,
    file_digest,
    read_json,
    remove_stale,
    replace_file,
    write_json,
)
from phototag.base.parallel import Backend, run_in_order
from phototag.network.allocator import keep_freed_memory
from phototag.network.backbones import sketch_backbone
from phototag.network.inference import pick_device
from phototag.network.model import Standardize, build_backbones
from phototag.network.params import pair_backbones
from phototag.network.runtime import accelerate

BATCH = 32  # photos at a time; more are slower on a CPU, whose caches they outgrow
CHUNK = 4096  # rows of features read at a time
PART = ".part"  # how the names of unfinished features end
LOADING = Lock()  # of threads, one loads and records the backbones
PROBES = 4  # photos whose features are computed anew before they are trained on


@dataclass(frozen=True)
class Pace:
    """How many photos' features were computed, and in how many seconds."""

    photos: int
    seconds: float


@dataclass(frozen=True)
class Frozen:
    """Frozen backbones and photos: all that a worker needs to know.

    Attributes:
        name: `model.name`.
        weights: `model.weights`, for each backbone one.
        images: The packed array's file, uint8 [num_images, size, size, 3].
    """

    name: str
    weights: str | tuple[str, ...] | None
    images: Path


def embed_photos(
    frozen: Frozen, path: Path, unfinished: Path, backend: Backend = "sequential", n_jobs: int = -1
) -> Pace:
    """Compute every photo's features and write them to a .npy file, float32 [num_images, width].

    What a killed process had done is kept in `unfinished`, which grows batch by batch and becomes
    `path` in the end: the next one goes on behind it, and ends with the same bytes. Processes that
    share it must `take_turn`.

    Args:
        frozen: The backbones and the photos.
        path: The file.
        unfinished: Another file, whose name stands for these backbones and photos.
        backend: Of `run_in_order`; each worker loads the backbones once.
        n_jobs: As there.

    Returns:
        How long it took, of what was left to do.

    Raises:
        InputError: Of `build_backbones`.
    """
    num_images, size = np.load(frozen.images, mmap_mode="r").shape[:2]
    pairs = pair_backbones(frozen.name, frozen.weights)
    width = sum(sketch_backbone(name, weights, size).width for name, weights in pairs)
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (num_images, width)}
    npy.write_array_header_1_0(header, described)
    start = len(header.getvalue())
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    with unfinished.open("ab") as file:
        if file.tell() < start:
            file.truncate(0)
            file.write(header.getvalue())
        # Batches are the same as in one go, because a sum's last digits may depend on them.
        done = (file.tell() - start) // (BATCH * width * 4) * BATCH
        file.truncate(start + done * width * 4)
        file.seek(0, io.SEEK_END)
        bar = tqdm(total=num_images, initial=done, desc="embed", unit="image", disable=None)
        began = time.perf_counter()
        batches = range(done, num_images, BATCH)
        for features in run_in_order(partial(_embed_batch, frozen), batches, backend, n_jobs):
            file.write(features.astype("<f4").tobytes())
            file.flush()
            bar.update(len(features))
        bar.close()
    # On another disk, moving is copying, which a kill may cut short.
    with replace_file(path) as temporary:
        shutil.move(unfinished, temporary)
    remove_stale(unfinished.parent.glob(f"*{PART}"))  # what was begun for others, and given up
    return Pace(num_images - done, time.perf_counter() - began)


def take_turn(folder: Path) -> AbstractContextManager[object]:
    """Wait until no other process of this project computes features; a context that holds the turn.

    A `dvc repro` that is killed leaves its stage at work. Side by side with the next one's, both
    would append to one unfinished file, and the older, of other weights maybe, could end last.

    Args:
        folder: Of unfinished features.
    """
    lock = FileLock(folder / "lock")
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        print("another process is computing features here: waiting for its end", file=sys.stderr)
        return lock.acquire()


def _embed_batch(frozen: Frozen, first: int) -> np.ndarray:
    with LOADING:
        network, images = _load(frozen)
    return _compute(network, images[first : first + BATCH], pick_device())


@cache
def _load(frozen: Frozen) -> tuple[nn.Module, np.ndarray]:
    """Load backbones and photos, once in each worker."""
    keep_freed_memory()
    images = np.load(frozen.images, mmap_mode="r")
    backbones = build_backbones(frozen.name, frozen.weights, images.shape[1])
    device = pick_device()
    backbones.eval().to(device)
    return accelerate(backbones, _put(images[:2], device)), images


def _put(images: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2)


@torch.inference_mode()
def _compute(backbones: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    features: Tensor = backbones(_put(images, device))
    return features.float().cpu().numpy()


def note_pace(folder: Path, features: Path, pace: Pace) -> None:
    """Note how long features took, for the runs that train on them."""
    write_json(_pace_of(folder, features), asdict(pace))


def read_pace(folder: Path, features: Path) -> Pace | None:
    """Read how long features took; None where they were not computed in this project."""
    path = _pace_of(folder, features)
    return Pace(**read_json(path)) if path.exists() else None


def _pace_of(folder: Path, features: Path) -> Path:
    # Beside DVC's outputs: equal photos and weights give equal outputs, and never equal times.
    return folder / f"{file_digest(features)[:32]}.json"


def features_key(pairs: Iterable[tuple[str, str | None]], files: list[Path], images: Path) -> str:
    """Return the key of unfinished features: of which backbones, weights, code and photos.

    The photos go by their file's size and time, because reading all would take long; where these
    change for no reason, the work begins anew.
    """
    state = images.stat()
    code = sorted(Path(__file__).parent.glob("*.py"))
    versions = [torch.__version__, torch.get_num_threads()]
    return content_key([*pairs, state.st_size, state.st_mtime_ns, *versions], [*files, *code])


def read_features(path: Path, backbones: nn.Module, images: np.ndarray) -> np.ndarray:
    """Read the features of these photos, memory-mapped.

    A few are computed anew: features of other photos, sizes or weights are refused.

    Raises:
        InputError: The file is missing, or holds other features.
    """
    try:
        features: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        raise InputError(f"{path} is missing or damaged: `dvc repro embed` makes it") from None
    rows = np.linspace(0, len(images) - 1, PROBES).astype(int)
    # Theirs: of several processes each has a GPU of its own.
    device = next(backbones.buffers()).device
    expected = _compute(backbones.eval(), images[rows], device)
    if features.shape != (len(images), expected.shape[1]) or not np.allclose(
        features[rows], expected, rtol=0, atol=0.01 * float(np.abs(expected).max())
    ):
        raise InputError(
            f"{path} holds the features of other photos or of other weights: "
            "`dvc repro --force embed` makes them anew"
        )
    return features


@torch.no_grad()
def standardize_features(layer: nn.Module, features: np.ndarray, rows: np.ndarray) -> None:
    """Give the layer mean and standard deviation of each feature over these rows."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(rows), CHUNK):
        total += features[rows[start : start + CHUNK]].sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    squares = np.zeros(features.shape[1])
    for start in range(0, len(rows), CHUNK):
        squares += ((features[rows[start : start + CHUNK]] - mean) ** 2).sum(axis=0)
    std = np.sqrt(squares / len(rows))
    assert isinstance(layer, Standardize)
    layer.mean.copy_(torch.from_numpy(mean))
    # A feature that is the same everywhere has std 0 and carries nothing.
    layer.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
