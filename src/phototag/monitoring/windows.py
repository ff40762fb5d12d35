"""Windows: photos without labels that are judged together, such as those of one month."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from phototag.apps.formats import show_name
from phototag.base.errors import InputError
from phototag.base.parallel import Backend, run_in_order
from phototag.monitoring.properties import PROPERTIES, measure_properties
from phototag.monitoring.reference import to_logits
from phototag.server.log import read_log
from phototag.serving.tagger import (
    BATCH,
    Tagger,
    Tags,
    accelerate_tagger,
    load_tagger,
    read_photo,
    tag_photos,
)

Row = tuple[str, list[float], list[bool], float, list[float]]


@dataclass(frozen=True)
class Window:
    """Predictions for the photos of a window.

    Attributes:
        sha256: SHA-256 of each photo file, [num_photos].
        logits: Logits of the served probabilities, float [num_photos, num_labels].
        predicted: Whether each label is predicted, bool [num_photos, num_labels].
        familiarity: Familiarity of each photo, 0..100, or NaN, float [num_photos].
        properties: Image properties, float [num_photos, num_properties]; NaN if only the
            predictions are known.
    """

    sha256: list[str]
    logits: np.ndarray
    predicted: np.ndarray
    familiarity: np.ndarray
    properties: np.ndarray

    @property
    def fingerprint(self) -> str:
        """Hash of the photos, which does not depend on their order."""
        return hashlib.sha256("".join(sorted(self.sha256)).encode()).hexdigest()[:16]


def predict_window(
    files: tuple[Path, Path], names: Sequence[str], backend: Backend
) -> tuple[Window, list[str]]:
    """Predict the labels of photos, and return the window and a message per unreadable photo.

    Args:
        files: Model file and thresholds file.
        names: Paths of the photos.
        backend: Backend passed to `run_in_order`.
    """
    labels = load_tagger(*files).labels
    paths = [str(Path(name).absolute()) for name in names]
    parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    results = run_in_order(partial(_tag_files, files), parts, backend)
    rows, errors = list[Row](), list[str]()
    with tqdm(total=len(names), unit="photo", disable=None) as bar:
        for part, found in zip(parts, results, strict=True):
            bar.update(len(part))
            for name, row in zip(part, found, strict=True):
                if isinstance(row, str):
                    errors.append(f"{show_name(name)}: {row}")
                else:
                    rows.append(row)
    return _make_window(rows, len(labels)), errors


def _tag_files(files: tuple[Path, Path], names: Sequence[str]) -> list[Row | str]:
    tagger = _load(files)
    tags = tag_photos(tagger, [read_photo(name) for name in names])
    return [tag.error if tag.error is not None else _describe(tag) for tag in tags]


@cache
def _load(files: tuple[Path, Path]) -> Tagger:
    return accelerate_tagger(load_tagger(*files))


def _describe(tags: Tags) -> Row:
    assert tags.pixels is not None
    return (
        tags.sha256,
        list(tags.scores.values()),
        [label in set(tags.labels) for label in tags.scores],
        float("nan") if tags.familiarity is None else tags.familiarity,
        measure_properties(tags.pixels[None])[0].tolist(),
    )


def read_window(folder: Path, version: str, labels: Sequence[str]) -> Window:
    """Read the photos that a model version has served from the log in a folder.

    A photo that was served several times counts once.

    Raises:
        InputError: The folder has no log, or no line is about this version.
    """
    rows: dict[str, Row] = {}
    others = set[str]()
    for photo in read_log(folder):
        if photo.version != version or photo.scores.keys() != set(labels):
            others.add(photo.version)
            continue
        chosen, familiarity = set(photo.labels), photo.familiarity
        rows[photo.sha256] = (
            photo.sha256,
            [photo.scores[label] for label in labels],
            [label in chosen for label in labels],
            float("nan") if familiarity is None else familiarity,
            [float("nan")] * len(PROPERTIES),
        )
    if not rows:
        raise InputError(
            f"{folder} has photos served by version {', '.join(sorted(others))}, none by version "
            f"{version}: pass --version"
        )
    return _make_window(list(rows.values()), len(labels))


def _make_window(rows: Sequence[Row], num_labels: int) -> Window:
    if not rows:
        raise InputError("no photo of this window could be read: pass a folder with photos")
    sha256, scores, predicted, familiarity, properties = zip(*rows, strict=True)
    return Window(
        list(sha256),
        to_logits(np.array(scores, np.float64).reshape(-1, num_labels)),
        np.array(predicted, bool).reshape(-1, num_labels),
        np.array(familiarity, np.float64),
        np.array(properties, np.float64),
    )
