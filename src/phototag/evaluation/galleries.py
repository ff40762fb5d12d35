"""Example photos of each label: correct and wrong predictions, and likely label errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from phototag.dataset.dataset import Dataset, read_batch
from phototag.dataset.targets import UNKNOWN, is_known
from phototag.evaluation.gradcam import locate_labels
from phototag.evaluation.result import Evaluation
from phototag.evaluation.tables import sort_labels
from phototag.pages.figures import colormaps
from phototag.pages.html import jpeg_uri

MAX_EXAMPLES = 6  # largest number of examples of the same kind and label
MAX_LABELS = 30  # largest number of labels that have a gallery
SIDE = 128  # side length of the example photos in pixels
BATCH = 32  # number of photos for which the network runs at a time


@dataclass(frozen=True)
class Example:
    """One photo in the gallery of a label.

    Attributes:
        photo: Data URI of the photo.
        heat: Data URI of the photo overlaid with its Grad-CAM heat map; empty if the network has
            no spatial feature maps.
        file: Name of the source file.
        truth: True labels of the photo, followed by the number of known labels if some are unknown.
        scores: The three labels with the highest probabilities, each followed by its probability.
        probability: Predicted probability of the gallery's label, 0..1.
        familiarity: Familiarity of the photo, 0..100, in the list of the least familiar photos.
    """

    photo: str
    heat: str
    file: str
    truth: str
    scores: str
    probability: float
    familiarity: float | None = None


Galleries = dict[str, dict[str, list[Example]]]


def build_galleries(model: nn.Module, device: torch.device, result: Evaluation) -> Galleries:
    """Select example photos for the most frequent labels, and compute their heat maps.

    Returns:
        For each label, a dictionary from the kind of example (such as false positives) to at most
        `MAX_EXAMPLES` examples. The labels are sorted by descending frequency.
    """
    held_out, probabilities = result.held_out.photos, result.held_out.probabilities
    # The evaluated photos come last. Any other photos are used only as likely label errors.
    evaluated = np.arange(len(held_out)) >= len(held_out) - len(result.evaluated.photos)
    suspects = result.tables["label_errors"]
    chosen = {}
    for label in sort_labels(held_out.targets)[:MAX_LABELS].tolist():
        kinds = _pick_examples(
            np.where(evaluated, held_out.targets[:, label], UNKNOWN),
            probabilities[:, label],
            result.held_out.predicted[:, label],
        )
        own = suspects["photo"][suspects["label"] == held_out.labels[label]]
        chosen[label] = kinds | {"likely label errors": own.tolist()[:MAX_EXAMPLES]}
    pairs = {
        (photo, label)
        for label, kinds in chosen.items()
        for photos in kinds.values()
        for photo in photos
    }
    examples = _make_examples(model, device, held_out, probabilities, sorted(pairs))
    return {
        held_out.labels[label]: {
            kind: [examples[photo, label] for photo in photos] for kind, photos in kinds.items()
        }
        for label, kinds in chosen.items()
    }


def list_least_familiar(result: Evaluation) -> list[Example]:
    """Return at most `MAX_EXAMPLES` evaluated photos with the lowest familiarity."""
    if result.familiarity is None:
        return []
    photos, probabilities = result.evaluated.photos, result.evaluated.probabilities
    familiarity = result.familiarity[photos.rows]
    return [
        Example(
            photo=encode_photo(photos.images[photos.rows[photo]]),
            heat="",
            **_describe(photos, probabilities, photo),
            probability=float("nan"),
            familiarity=float(familiarity[photo]),
        )
        for photo in np.argsort(familiarity, kind="stable")[:MAX_EXAMPLES].tolist()
    ]


def _pick_examples(
    targets: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray
) -> dict[str, list[int]]:
    """Return the positions of the most confident correct and wrong predictions of one label."""
    descending = np.argsort(-probabilities, kind="stable")
    positive, negative = (targets > 0)[descending], (targets == 0)[descending]
    chosen = predicted[descending]
    kinds = {
        "true positives with the highest probability": descending[positive & chosen],
        "false positives with the highest probability": descending[negative & chosen],
        "false negatives with the lowest probability": descending[positive & ~chosen][::-1],
    }
    return {kind: photos[:MAX_EXAMPLES].tolist() for kind, photos in kinds.items()}


def _make_examples(
    model: nn.Module,
    device: torch.device,
    dataset: Dataset,
    probabilities: np.ndarray,
    pairs: Sequence[tuple[int, int]],
) -> dict[tuple[int, int], Example]:
    """Return a dictionary from pairs of a photo and a label to their examples.

    The network runs once for each photo, even if the photo is an example of several labels.
    """
    examples = {}
    photos = sorted({photo for photo, _ in pairs})
    for start in range(0, len(photos), BATCH):
        batch = photos[start : start + BATCH]
        images, _ = read_batch(dataset, np.array(batch), device)
        thumbnails = [make_thumbnail(dataset.images[dataset.rows[photo]]) for photo in batch]
        uris = [encode_photo(pixels) for pixels in thumbnails]
        own = [(batch.index(photo), label) for photo, label in pairs if photo in batch]
        maps = locate_labels(model, images, own, len(thumbnails[0]))
        for index, (place, label) in enumerate(own):
            photo, pixels = batch[place], thumbnails[place]
            examples[photo, label] = Example(
                photo=uris[place],
                heat="" if maps is None else encode_photo(overlay_heat(pixels, maps[index])),
                **_describe(dataset, probabilities, photo),
                probability=float(probabilities[photo, label]),
            )
    return examples


def _describe(dataset: Dataset, probabilities: np.ndarray, photo: int) -> dict[str, Any]:
    """Return the file, the true labels and the highest scores of a photo, as in `Example`."""
    values = probabilities[photo]
    highest = np.argsort(-values, kind="stable")[:3]
    return {
        "file": dataset.files[photo],
        "truth": describe_truth(dataset.labels, dataset.targets[photo]),
        "scores": ", ".join(f"{dataset.labels[i]} {values[i]:.2f}" for i in highest),
    }


def overlay_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlay a heat map (0..1), [height, width], on a photo, uint8 [height, width, 3]."""
    color = colormaps["inferno"](heat)[:, :, :3] * 255
    # The share is at least 0.3, because heat is more visible on a darkened photo.
    share = 0.3 + 0.4 * heat[:, :, None]
    return np.asarray((1 - share) * image + share * color).astype(np.uint8)


def describe_truth(labels: Sequence[str], targets: np.ndarray) -> str:
    """Return the labels of a photo as text, and the number of known labels if some are unknown."""
    known = is_known(targets)
    names = ", ".join(np.array(labels)[targets > 0]) or "none"
    return names if known.all() else f"{names} ({known.sum()} of {len(known)} labels are known)"


def encode_photo(image: np.ndarray) -> str:
    """Return a photo, uint8 [height, width, 3], as the data URI of a thumbnail."""
    return jpeg_uri(Image.fromarray(make_thumbnail(image)))


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce a photo, uint8 [height, width, 3], to at most `SIDE` pixels per side."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=None)
    return np.asarray(picture)
