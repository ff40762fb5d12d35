"""The questions that are most worth a person's time, the worthiest first."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.acquisition import measure_uncertainty, order_photos
from phototag.evaluation.label_errors import find_label_errors
from phototag.review.evidence import Evidence

NEXT = 500  # photos that `next` lists; after as many, another training knows better


@dataclass(frozen=True)
class Question:
    """Whether a photo carries a label, both by their positions."""

    photo: int
    label: int


def rank_errors(evidence: Evidence) -> list[Question]:
    """List entries that networks which had not seen the photo contradict."""
    rows = np.flatnonzero(evidence.unseen)
    found = find_label_errors(evidence.photos.targets[rows], evidence.probabilities[rows])
    return [
        Question(int(rows[photo]), int(label))
        for photo, label in zip(found["photo"], found["label"], strict=True)
    ]


def rank_next(evidence: Evidence) -> list[Question]:
    """List what is not known of photos, uncertain ones that do not look alike, photo by photo.

    Of a photo, the likeliest label comes first.
    """
    targets, probabilities = evidence.photos.targets, evidence.probabilities
    uncertainty = measure_uncertainty(targets, probabilities)
    return [
        Question(photo, int(label))
        for photo in order_photos(uncertainty, evidence.features, NEXT).tolist()
        for label in np.argsort(-probabilities[photo], kind="stable")
        if targets[photo, label] == UNKNOWN
    ]


def rank_duplicates(evidence: Evidence) -> list[Question]:
    """List the labels on which copies of one photo differ, for each of the copies.

    Groups go by their name, and files of the same bytes are one question.
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
