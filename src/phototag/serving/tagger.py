"""Photos' files to labels: what the command line, the registered model and the demo share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.decoding.photos import MAX_PIXELS
from phototag.decoding.sources import read_file
from phototag.metrics.losses import sigmoid
from phototag.network.runtime import accelerate
from phototag.network.weights import describe_origin, load_model
from phototag.serving.pool import decode_photos

BATCH = 64  # photos whose pixels are held at once


@dataclass(frozen=True)
class Tagger:
    """A network and what turns its logits into labels.

    Attributes:
        network: From uint8 [batch, 3, size, size] to logits, on the CPU.
        labels: Their names, [num_labels].
        size: Pixels a side of its input.
        temperature: By which the logits are divided.
        thresholds: 0..1 [num_labels].
        origin: What it was trained on, in a sentence; may be empty.
        is_synthetic: Whether the model was trained on the synthetic dataset only.
        files: Weights and thresholds, from which a worker loads it; none of one made in memory.
    """

    network: nn.Module
    labels: list[str]
    size: int
    temperature: float
    thresholds: np.ndarray
    origin: str = ""
    is_synthetic: bool = False
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Tags:
    """What is said of one photo.

    Attributes:
        labels: Those whose probability reaches their threshold.
        scores: Label -> probability, 0..1; empty where the photo could not be read.
        error: Why it could not be read, or None.
        pixels: What the network saw, uint8 [size, size, 3], or None.
    """

    labels: list[str]
    scores: dict[str, float]
    error: str | None
    pixels: np.ndarray | None = None


def load_tagger(model_file: Path, thresholds_file: Path) -> Tagger:
    """Load a model file and its thresholds.

    Raises:
        InputError: One of them is missing or of another kind, or they do not belong together.
    """
    network, metadata = load_model(model_file)
    try:
        point = read_json(thresholds_file)
        thresholds = np.array([float(point["thresholds"][label]) for label in metadata.labels])
        temperature, key = float(point["temperature"]), point.get("content_key")
    except FileNotFoundError:
        raise InputError(f"{thresholds_file} is missing: `dvc repro evaluate` makes it") from None
    except OSError as error:
        raise InputError(f"{thresholds_file} cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{thresholds_file} holds no thresholds for the labels of {model_file} "
            f"({type(error).__name__}: {error})"
        ) from None
    if not np.isfinite([temperature, *thresholds]).all():
        raise InputError(f"{thresholds_file} holds thresholds that are no numbers")
    # Older files do not tell.
    if key not in (None, metadata.content_key):
        raise InputError(
            f"{thresholds_file} and {model_file} are of two trainings: `dvc repro evaluate` makes "
            "the thresholds of the model that is here"
        )
    return Tagger(
        network,
        metadata.labels,
        metadata.size,
        temperature,
        thresholds,
        _date_origin(model_file, describe_origin(metadata)),
        metadata.is_synthetic,
        (model_file.absolute(), thresholds_file.absolute()),
    )


def accelerate_tagger(tagger: Tagger) -> Tagger:
    """Have the network run by ONNX Runtime, where that gives the same; recording takes a second."""
    return replace(tagger, network=accelerate(tagger.network, draw_examples(tagger)))


def draw_examples(tagger: Tagger) -> Tensor:
    """Draw what a network is recorded and compared with: noise, uint8 [2, 3, size, size]."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, tagger.size, tagger.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _date_origin(model_file: Path, origin: str) -> str:
    """Add when the file was written; the file itself cannot tell: equal inputs, equal bytes."""
    day = datetime.fromtimestamp(model_file.stat().st_mtime, UTC).date()
    return f"{origin} {model_file.name} is of {day}." if origin else ""


def read_photo(path: str | Path) -> bytes | InputError:
    """Read a photo's file; return, not raise, why it cannot be read."""
    try:
        real = Path(path).resolve()
        return read_file(real.parent, real.name)
    except InputError as error:
        return error
    except Exception as error:  # links in a circle, NUL in a name, a damaged zip: anything at all
        return InputError(f"no path of a file: {str(error) or type(error).__name__}")


def tag_photos(
    tagger: Tagger, photos: Sequence[bytes | InputError], max_pixels: int = MAX_PIXELS
) -> list[Tags]:
    """Tag photos; one that cannot be read gets an error and leaves the others alone.

    Args:
        tagger: The model.
        photos: Each a file's bytes, or why there are none.
        max_pixels: A photo of more is refused before it is decoded.

    Returns:
        One entry a photo, in their order.
    """
    found: list[Tags] = []
    for start in range(0, len(photos), BATCH):
        found += _tag_batch(tagger, photos[start : start + BATCH], max_pixels)
    return found


def _tag_batch(tagger: Tagger, photos: Sequence[bytes | InputError], max_pixels: int) -> list[Tags]:
    decoded = decode_photos(photos, tagger.size, max_pixels)
    readable = [pixels for pixels, _ in decoded if pixels is not None]
    logits = np.zeros((0, len(tagger.labels)))
    if readable:
        images = torch.from_numpy(np.stack(readable)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            logits = tagger.network(images).float().numpy()
    rows = iter(sigmoid(logits / tagger.temperature))
    return [
        Tags([], {}, error) if pixels is None else _describe(tagger, next(rows), pixels)
        for pixels, error in decoded
    ]


def _describe(tagger: Tagger, probabilities: np.ndarray, pixels: np.ndarray) -> Tags:
    chosen = probabilities >= tagger.thresholds
    return Tags(
        labels=[label for label, yes in zip(tagger.labels, chosen, strict=True) if yes],
        scores=dict(zip(tagger.labels, probabilities.tolist(), strict=True)),
        error=None,
        pixels=pixels,
    )
