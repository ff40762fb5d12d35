"""Search for likely label errors."""

import numpy as np
import pandas as pd


def find_label_errors(targets: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Find given labels that an independent model confidently contradicts.

    The method is confident learning (Northcutt, Jiang and Chuang, 2021), which treats each label as
    a question with the answers 0 and 1. Each answer has a limit: its mean predicted probability on
    the photos whose target is this answer. The model is confident in an answer if the predicted
    probability of the answer is at least the limit. A target is a likely error if the model
    predicts the opposite answer, is confident in it, and is not confident in the given answer.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels]. Unknown entries are ignored.
        probabilities: Probabilities (0..1), of the same shape, predicted by a model that was not
            trained on these photos.

    Returns:
        Table with the columns `photo` and `label` (positions), `given` (0 or 1), `probability` (of
        the label) and `margin` (probability of the opposite answer minus the limit of this
        answer), sorted by descending margin. Labels whose known targets are all equal are skipped.
    """
    positive, negative = targets > 0, targets == 0
    num_positive, num_negative = positive.sum(axis=0), negative.sum(axis=0)
    mean_yes = (probabilities * positive).sum(axis=0) / np.maximum(num_positive, 1)
    mean_no = ((1 - probabilities) * negative).sum(axis=0) / np.maximum(num_negative, 1)
    yes, no = probabilities - mean_yes, (1 - probabilities) - mean_no
    wrong = (positive & (no >= 0) & (yes < 0)) | (negative & (yes >= 0) & (no < 0))
    wrong &= (num_positive > 0) & (num_negative > 0)
    wrong &= (probabilities > 0.5) != positive
    photo, label = np.nonzero(wrong)
    table = pd.DataFrame(
        {
            "photo": photo,
            "label": label,
            "given": targets[wrong],
            "probability": probabilities[wrong],
            "margin": np.where(positive, no, yes)[wrong],
        }
    )
    return table.sort_values("margin", ascending=False, kind="stable").reset_index(drop=True)
