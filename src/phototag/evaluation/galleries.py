"""Photos that show what a model does right and wrong."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from phototag.dataset.dataset import Dataset, join_datasets, read_batch
from phototag.dataset.targets import is_known
from phototag.evaluation.gradcam import locate_labels
from phototag.evaluation.result import Evaluation
from phototag.evaluation.tables import sort_labels
from phototag.metrics.losses import sigmoid
from phototag.pages.figures import colormaps, data_uri

PER_GROUP = 6  # photos of each kind that a label shows
LABELS = 30  # with a gallery: the most frequent ones
SIDE = 128  # of a picture, pixels
BATCH = 32


@dataclass(frozen=True)
class Example:
    """One photo in a gallery.

    Attributes:
        photo: Data URI.
        heat: Data URI of the photo with what spoke for the label (Grad-CAM) laid over it; empty
            where the network has no such maps.
        file: The source file.
        truth: True labels, and how many are known where not all are.
        scores: The highest probabilities.
        probability: Of the gallery's label, 0..1.
    """

    photo: str
    heat: str
    file: str
    truth: str
    scores: str
    probability: float


def build_galleries(
    model: nn.Module, device: torch.device, result: Evaluation
) -> dict[str, dict[str, list[Example]]]:
    """Choose and draw the examples of each label.

    Args:
        model: The network, on `device`.
        device: Where it is.
        result: Its evaluation.

    Returns:
        Label -> kind -> at most `PER_GROUP` examples; the most frequent labels come first.
    """
    held_out = join_datasets([result.datasets[name] for name in result.logits])
    probabilities = sigmoid(np.concatenate([*result.logits.values()]))
    # The judged split is the last; another serves only the search for label errors.
    judged = np.arange(len(held_out)) >= len(held_out) - len(result.datasets[result.split])
    predicted = probabilities >= result.thresholds.values
    label_errors = result.tables["label_errors"]
    frequent = sort_labels(held_out.targets)[:LABELS]
    picks = {
        label: _pick(
            held_out.targets[:, label],
            probabilities[:, label],
            predicted[:, label],
            judged,
            label_errors["photo"][label_errors["label"] == held_out.labels[label]],
        )
        for label in frequent.tolist()
    }
    wanted = [(p, n) for n, kinds in picks.items() for group in kinds.values() for p in group]
    drawn = dict(zip(wanted, _draw(model, device, held_out, wanted), strict=True))
    return {
        held_out.labels[label]: {
            kind: [
                _describe(held_out, probabilities, photo, label, drawn[photo, label])
                for photo in group
            ]
            for kind, group in kinds.items()
        }
        for label, kinds in picks.items()
    }


def _pick(
    targets: np.ndarray,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    judged: np.ndarray,
    suspects: pd.Series,
) -> dict[str, list[int]]:
    highest = np.argsort(-probabilities, kind="stable")

    def first(order: np.ndarray, chosen: np.ndarray) -> list[int]:
        return [int(photo) for photo in order if chosen[photo]][:PER_GROUP]

    return {
        "most confident and right": first(highest, judged & (targets > 0) & predicted),
        "most confident and wrong": first(highest, judged & (targets == 0) & predicted),
        "missed by most": first(highest[::-1], judged & (targets > 0) & ~predicted),
        "likely label errors": suspects.tolist()[:PER_GROUP],
    }


def _draw(
    model: nn.Module, device: torch.device, dataset: Dataset, wanted: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, str]]:
    """Yield the photo and its heat map for each (photo, label)."""
    for start in range(0, len(wanted), BATCH):
        part = np.array(wanted[start : start + BATCH])
        images, _ = read_batch(dataset, part[:, 0], device)
        maps = locate_labels(model, images, torch.from_numpy(part[:, 1]))
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        if maps is None:
            yield from ((_encode(image), "") for image in pixels)
            continue
        for image, heat in zip(pixels, maps, strict=True):
            yield _encode(image), _encode(overlay_heat(image, heat))


def overlay_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a heat map over a photo: the hotter, the more of the map's colour.

    Args:
        image: uint8 [height, width, 3].
        heat: 0..1 [height, width].

    Returns:
        uint8 [height, width, 3].
    """
    color = colormaps["inferno"](heat)[:, :, :3] * 255
    share = 0.3 + 0.4 * heat[:, :, None]  # a dimmed photo, so that the heat stands out
    return np.asarray((1 - share) * image + share * color).astype(np.uint8)


def _encode(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    if max(picture.size) > SIDE:
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _describe(
    dataset: Dataset,
    probabilities: np.ndarray,
    photo: int,
    label: int,
    pictures: tuple[str, str],
) -> Example:
    highest = np.argsort(-probabilities[photo], kind="stable")[:3]
    truth = ", ".join(np.array(dataset.labels)[dataset.targets[photo] > 0]) or "none"
    known, number = is_known(dataset.targets[photo]), len(dataset.labels)
    if not known.all():
        truth += f" ({known.sum()} of {number} labels are known)"
    return Example(
        *pictures,
        file=dataset.files[photo],
        truth=truth,
        scores=", ".join(f"{dataset.labels[i]} {probabilities[photo, i]:.2f}" for i in highest),
        probability=float(probabilities[photo, label]),
    )
