"""The questions that review asks, and their order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.label_errors import find_label_errors
from phototag.review.acquisition import measure_uncertainty, order_photos
from phototag.review.evidence import Evidence

MAX_PHOTOS = 500  # photos that `next` asks about; train again before labelling more


@dataclass(frozen=True)
class Question:
    """The question whether a photo carries a label.

    Attributes:
        photo: Row of the photo in images.npy.
        label: Position of the label.
    """

    photo: int
    label: int


def rank_errors(evidence: Evidence) -> list[Question]:
    """Return the likely label errors among photos that the network was not trained on."""
    rows = np.flatnonzero(evidence.unseen)
    found = find_label_errors(evidence.photos.targets[rows], evidence.probabilities[rows])
    return [
        Question(int(rows[photo]), int(label))
        for photo, label in zip(found["photo"], found["label"], strict=True)
    ]


def rank_next(evidence: Evidence) -> list[Question]:
    """Return the unknown labels of uncertain and diverse photos, photo by photo.

    The labels of a photo are in the order of their scores, the highest first.
    """
    targets, probabilities = evidence.photos.targets, evidence.probabilities
    uncertainty = measure_uncertainty(targets, probabilities)
    return [
        Question(photo, int(label))
        for photo in order_photos(uncertainty, evidence.features, MAX_PHOTOS).tolist()
        for label in np.argsort(-probabilities[photo], kind="stable")
        if targets[photo, label] == UNKNOWN
    ]


def rank_duplicates(evidence: Evidence) -> list[Question]:
    """Return the labels that are yes and no within a group of duplicates, for each photo of it.

    Groups are in the order of their names. Files with the same bytes are one question.
    """
    groups: dict[str, list[int]] = {}
    for row, group in enumerate(evidence.duplicate_groups):
        if group:
            groups.setdefault(group, []).append(row)
    targets, sha256 = evidence.photos.targets, evidence.photos.sha256
    questions: dict[tuple[str, int], Question] = {}
    for _, rows in sorted(groups.items()):
        given = targets[rows]
        for label in np.flatnonzero((given == 1).any(axis=0) & (given == 0).any(axis=0)).tolist():
            for row in rows:
                questions.setdefault((sha256[row], label), Question(row, label))
    return list(questions.values())


RANKINGS: dict[str, Callable[[Evidence], list[Question]]] = {
    "errors": rank_errors,
    "next": rank_next,
    "duplicates": rank_duplicates,
}
