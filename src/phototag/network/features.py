"""Features of frozen backbones, computed once for all photos."""

import io
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor, nn
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import content_key, file_digest, read_json, write_json
from phototag.network.graph import export_graph
from phototag.network.inference import pick_device
from phototag.network.model import Standardize

BATCH = 32  # photos at a time; more are slower on a CPU, whose caches they outgrow
PARITY = 1e-4  # of the largest feature, by which another runtime may differ from PyTorch
CHUNK = 4096  # rows of features read at a time
PROBES = 4  # photos whose features are computed anew before they are trained on

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pace:
    """How many photos' features were computed, and in how many seconds."""

    photos: int
    seconds: float


class _FromPixels(nn.Module):
    """The backbones, fed with photos as the packed array has them."""

    def __init__(self, backbones: nn.Module) -> None:
        super().__init__()
        self.backbones = backbones

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, size, size, 3] to features, float32 [batch, width]."""
        features: Tensor = self.backbones(images.permute(0, 3, 1, 2))
        return features


def embed_photos(backbones: nn.Module, images: np.ndarray, path: Path, unfinished: Path) -> Pace:
    """Compute every photo's features and write them to a .npy file, float32 [num_images, width].

    What a killed process had done is kept in `unfinished`, which grows batch by batch and becomes
    `path` in the end: the next one goes on behind it, and ends with the same bytes.

    Args:
        backbones: `model[:2]` of `build_model`, with their weights.
        images: uint8 [num_images, size, size, 3].
        path: The file.
        unfinished: Another file, whose name stands for these backbones and photos.

    Returns:
        How long it took, of what was left to do.
    """
    run = pick_runtime(backbones.eval(), images[:2])
    width = run(images[:1]).shape[1]
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (len(images), width)}
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
        bar = tqdm(total=len(images), initial=done, desc="embed", unit="image", disable=None)
        began = time.perf_counter()
        for first in range(done, len(images), BATCH):
            features = run(images[first : first + BATCH])
            file.write(features.astype("<f4").tobytes())
            file.flush()
            bar.update(len(features))
        bar.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(unfinished, path)
    return Pace(len(images) - done, time.perf_counter() - began)


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


def features_key(name: str, files: list[Path], images: Path) -> str:
    """Return the key of unfinished features: of which backbones, weights, code and photos.

    The photos go by their file's size and time, because reading all would take long; where these
    change for no reason, the work begins anew.
    """
    state = images.stat()
    code = sorted(Path(__file__).parent.glob("*.py"))
    versions = [torch.__version__, torch.get_num_threads()]
    return content_key([name, state.st_size, state.st_mtime_ns, *versions], [*files, *code])


def pick_runtime(backbones: nn.Module, examples: np.ndarray) -> Run:
    """Return what computes features of uint8 [batch, size, size, 3] fastest here.

    On a CPU that is ONNX Runtime, where it is installed, can run the network, and gives the same
    features as PyTorch.
    """
    device = pick_device()
    backbones.to(device)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2)
        features: Tensor = backbones(batch)
        return features.float().cpu().numpy()

    if device.type == "cuda" or not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        return run
    expected = run(examples)
    try:
        faster = _build_onnx(backbones, examples)
        found = faster(examples)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"note: ONNX Runtime cannot run this network ({reason[:200]})", file=sys.stderr)
        return run
    off = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if not off <= PARITY:
        print(f"note: ONNX Runtime is off by {off:.1e}; PyTorch computes", file=sys.stderr)
        return run
    return faster


def _build_onnx(backbones: nn.Module, examples: np.ndarray) -> Run:
    import onnxruntime

    example = torch.from_numpy(np.resize(examples, (2, *examples.shape[1:])))
    graph = export_graph(_FromPixels(backbones), example, "images", "features")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"images": np.ascontiguousarray(images)})[0])

    return run


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
    device = next(backbones.buffers()).device
    with torch.inference_mode():
        batch = torch.from_numpy(images[rows]).to(device).permute(0, 3, 1, 2)
        expected = backbones.eval()(batch).float().cpu().numpy()
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
