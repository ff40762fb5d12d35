"""Labels that are likely wrong."""

import numpy as np
import pandas as pd


def find_label_errors(targets: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Find labels that a model which has not been trained on them contradicts with confidence.

    Confident learning (Northcutt, Jiang and Chuang, 2021), for each label as a question of yes or
    no: an answer counts as confident when its probability reaches the mean that the model gives
    to that answer where it is the given one. A given answer is likely wrong where the model is
    confident of the other answer, not of this one, and holds the other for the likelier.

    Args:
        targets: 1, 0 or `UNKNOWN`, which no model contradicts, [num_photos, num_labels].
        probabilities: Out-of-sample, 0..1, of the same shape.

    Returns:
        Columns photo and label (positions), given (0/1), probability (of the label) and margin
        (how far the other answer's probability passes its mean), the widest margin first. A label
        that every photo carries, or none, has no such means and is left out.
    """
    given, absent = targets > 0, targets == 0
    positives, negatives = given.sum(axis=0), absent.sum(axis=0)
    sure_yes = (probabilities * given).sum(axis=0) / np.maximum(positives, 1)
    sure_no = ((1 - probabilities) * absent).sum(axis=0) / np.maximum(negatives, 1)
    yes, no = probabilities - sure_yes, (1 - probabilities) - sure_no
    wrong = (given & (no >= 0) & (yes < 0)) | (absent & (yes >= 0) & (no < 0))
    wrong &= (positives > 0) & (negatives > 0)
    wrong &= (probabilities > 0.5) != given
    photo, label = np.nonzero(wrong)
    table = pd.DataFrame(
        {
            "photo": photo,
            "label": label,
            "given": targets[wrong],
            "probability": probabilities[wrong],
            "margin": np.where(given, no, yes)[wrong],
        }
    )
    return table.sort_values("margin", ascending=False, kind="stable").reset_index(drop=True)
