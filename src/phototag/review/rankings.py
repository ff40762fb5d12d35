"""Rankings: the questions that `phototag review` asks, and the order of the questions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import entr

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.label_errors import find_label_errors
from phototag.review.evidence import Evidence

MAX_PHOTOS = 500  # maximum of the ranking `next`; train again before labelling more photos


@dataclass(frozen=True)
class Question:
    """A question to the reviewer: does this photo have this label?

    Attributes:
        photo: Row of the photo in images.npy.
        label: Position of the label in the list of labels.
    """

    photo: int
    label: int


def rank_errors(evidence: Evidence) -> list[Question]:
    """Return questions about likely label errors, sorted by descending margin.

    Photos that are only scored by a network trained on them are skipped.
    """
    rows = np.flatnonzero(evidence.unseen)
    found = find_label_errors(evidence.photos.targets[rows], evidence.probabilities[rows])
    entries = found[["photo", "label"]].to_numpy().tolist()
    return [Question(int(rows[photo]), label) for photo, label in entries]


def rank_next(evidence: Evidence) -> list[Question]:
    """Return questions about the unknown labels of uncertain and diverse photos.

    Questions about the same photo are consecutive, in descending order of the scores.
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
    """Return questions about labels on which near duplicates disagree, one per photo and label.

    Duplicate groups are sorted by name. Files with identical bytes share one question.
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
    """Return the sum of each photo's predictive entropies over its unknown labels, in nats.

    The sum is 0 if all labels of the photo are known.
    """
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    entropy = entr(p) + entr(1 - p)
    return np.asarray((entropy * (targets == UNKNOWN)).sum(axis=1))


def order_photos(uncertainty: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Order photos so that each one is uncertain and differs from the preceding photos.

    Each step chooses the photo with the highest `uncertainty * distance`, where `distance` is the
    cosine distance to the nearest chosen photo. Photos of the same scene are thus kept apart.

    Args:
        uncertainty: Non-negative uncertainty of each photo, [num_photos].
        features: L2-normalized features (or zeros), float [num_photos, num_features].
        count: Maximum number of photos to return.

    Returns:
        Row numbers of at most `count` photos, int64. Photos with uncertainty 0 are omitted.
    """
    distance = np.ones(len(features))
    chosen: list[int] = []
    for _ in range(min(count, int((uncertainty > 0).sum()))):
        score = uncertainty * distance
        score[chosen] = -1
        chosen.append(int(np.argmax(score)))
        distance = np.minimum(distance, 1 - features @ features[chosen[-1]])
    return np.array(chosen, np.int64)
