"""The questions that review asks, and their order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import entr

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.label_errors import find_label_errors
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
    entries = found[["photo", "label"]].to_numpy().tolist()
    return [Question(int(rows[photo]), label) for photo, label in entries]


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
    groups = pd.Series(evidence.duplicate_groups)
    targets, sha256 = evidence.photos.targets, evidence.photos.sha256
    questions: dict[tuple[str, int], Question] = {}
    for rows in groups[groups != ""].groupby(groups).groups.values():
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


def measure_uncertainty(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Sum the predictive entropy of each photo's unknown entries, in nats.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        probabilities: Probabilities (0..1), of the same shape.

    Returns:
        float64 [num_photos]; 0 for a photo whose labels are all known.
    """
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    entropy = entr(p) + entr(1 - p)
    return np.asarray((entropy * (targets == UNKNOWN)).sum(axis=1))


def order_photos(uncertainty: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Order photos so that each one is uncertain and differs from the photos before it.

    The next photo maximizes uncertainty times cosine distance to the nearest photo already chosen,
    so that several photos of one scene are not labelled one after another.

    Args:
        uncertainty: Uncertainty of each photo, not negative, [num_photos].
        features: Features, with rows of length 1 or 0, float [num_photos, num_features].
        count: Largest number of photos to return.

    Returns:
        Positions of the photos, int64 [at most count]. Photos with uncertainty 0 are left out.
    """
    distance = np.ones(len(features))
    chosen: list[int] = []
    for _ in range(min(count, int((uncertainty > 0).sum()))):
        score = uncertainty * distance
        score[chosen] = -1
        chosen.append(int(np.argmax(score)))
        distance = np.minimum(distance, 1 - features @ features[chosen[-1]])
    return np.array(chosen, np.int64)
