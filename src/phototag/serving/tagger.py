"""Prediction of labels, as used by the command line, the registered model and the demo."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.decoding.photos import MAX_PIXELS, Photo
from phototag.decoding.sources import read_path
from phototag.network.familiarity import Familiarity, add_distance
from phototag.network.runtime import accelerate
from phototag.network.weights import describe_origin, load_familiarity, load_model
from phototag.serving.pool import decode_photos

BATCH = 64  # maximum number of photos in a batch


@dataclass(frozen=True)
class Tagger:
    """Network, together with the values that are needed to convert its logits to labels.

    Attributes:
        network: Network on the CPU that maps uint8 images [batch, 3, size, size] to logits. If
            there is a `familiarity`, the distance follows in the next column. The features may
            follow in further columns.
        labels: Names of the labels, [num_labels].
        size: Side length of the input images in pixels.
        temperature: Temperature by which the logits are divided to calibrate the probabilities.
        thresholds: Probability threshold of each label, 0..1 [num_labels]; above 1 for a label that
            abstains, which is never predicted.
        origin: Sentence that describes the training data, or an empty string.
        is_synthetic: Whether the model was trained only on the synthetic dataset.
        files: Paths of the model file and the thresholds file. Empty if there are no such files.
        familiarity: Module that maps distances to familiarities. None if the model file was written
            by a version of phototag without familiarity.
    """

    network: nn.Module
    labels: list[str]
    size: int
    temperature: float
    thresholds: np.ndarray
    origin: str = ""
    is_synthetic: bool = False
    files: tuple[Path, ...] = ()
    familiarity: Familiarity | None = None


@dataclass(frozen=True)
class Tags:
    """Prediction for one photo.

    Attributes:
        labels: Labels whose probability is at least their threshold.
        scores: Probability of each label, 0..1. Empty if the photo could not be read.
        error: Reason why the photo could not be read, or None if it was read.
        pixels: Resized photo, uint8 [size, size, 3], or None if the photo could not be read.
        familiarity: Percentage of new photos, of the same kind as the training photos, whose
            distance is at least as large, 0..100. None if it is not known.
        distance: Mean cosine distance to the nearest training photos, 0..2, or None.
        sha256: SHA-256 of the photo file, hexadecimal; empty if the file could not be read.
        features: Features of the photo, float32 [width], or None if the network does not output
            them.
    """

    labels: list[str]
    scores: dict[str, float]
    error: str | None
    pixels: np.ndarray | None = None
    familiarity: float | None = None
    distance: float | None = None
    sha256: str = ""
    features: np.ndarray | None = None


def load_tagger(model_file: Path, thresholds_file: Path, with_features: bool = False) -> Tagger:
    """Load a tagger from a model file and a thresholds file.

    If `with_features` is true and the model has a familiarity, the network outputs the features.

    Raises:
        InputError: A file is missing or invalid, or the two files belong to different trainings.
    """
    network, metadata = load_model(model_file)
    familiarity = load_familiarity(model_file)
    if familiarity:
        network = add_distance(network, metadata.spec, familiarity, with_features)
    try:
        point = read_json(thresholds_file)
        thresholds = np.array([float(point["thresholds"][label]) for label in metadata.labels])
        temperature = float(point["temperature"])
        if not np.isfinite([temperature, *thresholds]).all():
            raise ValueError("a threshold or the temperature is not finite")
        # Files written by older versions of phototag have no content key.
        if point.get("content_key", metadata.content_key) != metadata.content_key:
            raise ValueError("the two files belong to different trainings")
    except InputError:
        raise
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{thresholds_file} cannot be used with {model_file} ({type(error).__name__}: {error})"
            ": run `dvc repro evaluate`"
        ) from None
    return Tagger(
        network,
        metadata.labels,
        metadata.size,
        temperature,
        thresholds,
        describe_origin(metadata),
        metadata.is_synthetic,
        (model_file.absolute(), thresholds_file.absolute()),
        familiarity,
    )


def accelerate_tagger(tagger: Tagger) -> Tagger:
    """Return a tagger that uses ONNX Runtime, if this gives the same outputs (takes a second)."""
    return replace(tagger, network=accelerate(tagger.network, example_images(tagger)))


def example_images(tagger: Tagger) -> Tensor:
    """Return random images for tracing and comparing networks, uint8 [2, 3, size, size]."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, tagger.size, tagger.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def read_photo(path: str | Path) -> bytes | InputError:
    """Return the contents of an image file, or the error if the file cannot be read."""
    try:
        return read_path(Path(path))
    except InputError as error:
        return error


def tag_photos(
    tagger: Tagger, photos: Sequence[bytes | InputError], max_pixels: int = MAX_PIXELS
) -> list[Tags]:
    """Predict the labels of photos. A photo that cannot be read does not affect other photos.

    `photos` contains the contents of each image file, or the error that occurred when the file was
    read. Photos with more than `max_pixels` pixels are not decoded.
    """
    found: list[Tags] = []
    for start in range(0, len(photos), BATCH):
        found += _tag_batch(tagger, photos[start : start + BATCH], max_pixels)
    return found


def _tag_batch(tagger: Tagger, photos: Sequence[bytes | InputError], max_pixels: int) -> list[Tags]:
    decoded = decode_photos(photos, tagger.size, max_pixels)
    readable = [photo.pixels for photo in decoded if photo.pixels is not None]
    outputs = torch.zeros(0, len(tagger.labels))
    if readable:
        images = torch.from_numpy(np.stack(readable)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            outputs = tagger.network(images).float()
    rows = iter(outputs)
    return [
        Tags([], {}, photo.reason, sha256=photo.sha256)
        if photo.pixels is None
        else _predict(tagger, next(rows), photo)
        for photo in decoded
    ]


def _predict(tagger: Tagger, output: Tensor, photo: Photo) -> Tags:
    """Convert the output of the network for a photo: logits, and perhaps distance and features."""
    end = len(tagger.labels)
    logits, distance, features = output[:end].numpy(), output[end : end + 1], output[end + 1 :]
    probabilities = expit(logits / tagger.temperature, dtype=np.float64)
    above = probabilities >= tagger.thresholds
    return Tags(
        labels=[label for label, yes in zip(tagger.labels, above, strict=True) if yes],
        scores=dict(zip(tagger.labels, probabilities.tolist(), strict=True)),
        error=None,
        pixels=photo.pixels,
        familiarity=tagger.familiarity.rate(distance[None]).item() if tagger.familiarity else None,
        distance=distance.item() if tagger.familiarity else None,
        sha256=photo.sha256,
        features=features.numpy() if len(features) else None,
    )
