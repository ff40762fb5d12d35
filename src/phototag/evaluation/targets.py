"""Thresholds that keep a lowest precision or recall on new photos."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtrik, betainc, betaincinv

from phototag.dataset.targets import is_known
from phototag.evaluation.params import F1, Target

# Threshold of a label that abstains. No probability reaches it, so that programs predict nothing
# for this label even if they do not know about targets.
ABSTAIN = 2.0
CONFIDENCE = 0.95  # probability with which the threshold of a label keeps its target


def fit_target(
    targets: np.ndarray, probabilities: np.ndarray, groups: Sequence[str], target: Target
) -> float:
    """Choose a threshold of a label that keeps a lowest precision or recall on new photos.

    A threshold passes if the lower confidence bound of its precision or recall is at least the
    target. If many thresholds were tested, some would pass by chance. Therefore, the thresholds are
    tested in a fixed order, until one of them does not pass (fixed-sequence testing, as in Learn
    then Test; Angelopoulos et al., 2022). A threshold that does not keep the target is then chosen
    only if the first such threshold in this order passes, and one test has the confidence of one
    bound. For a recall, the order is from low to high thresholds. For a precision, it is from high
    to low thresholds. High thresholds have too few predictions to pass, so the order starts at the
    threshold that is most likely to pass if the predicted probabilities are right. This start does
    not depend on the targets.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`) of photos that the model has not seen, [num_photos].
        probabilities: Probabilities (0..1) of the label, [num_photos].
        groups: Name of each photo's group, [num_photos]; empty if each photo is its own group.
        target: Lowest precision or recall, other than `F1`.

    Returns:
        The last threshold that passes, or `ABSTAIN` if the first one does not pass.
    """
    order = np.argsort(-probabilities, kind="stable")
    order = order[is_known(targets[order])]
    counted = order[targets[order] > 0] if target.recall else order
    scores, rank = probabilities[counted], np.arange(1, len(counted) + 1)
    ends = np.flatnonzero(np.append(np.diff(scores), -1)[: len(scores)])  # last of equal scores
    sizes = _effective_sizes([groups[photo] for photo in counted] if len(groups) else counted)
    goal = target.precision or target.recall or 0.0
    if target.recall:
        share, sizes = rank / max(len(rank), 1), np.full(len(rank), sizes[-1:])
        sequence = ends[::-1]
    else:
        share = np.cumsum(targets[counted] > 0) / rank
        chances = _chance_to_pass(np.cumsum(scores) / rank, sizes, goal)
        sequence = ends[chances[ends].argmax() :] if len(ends) else ends
    passes = lower_bound(share, sizes)[sequence] >= goal
    passed = np.logical_and.accumulate(passes).sum()
    if not passed:
        return ABSTAIN
    cut = scores[sequence[passed - 1]]
    # All thresholds between two probabilities give the same predictions. Take the middle, so that
    # rounding on another machine does not change them.
    below = probabilities[order][probabilities[order] < cut]
    return float(cut + (below[0] if len(below) else 0)) / 2


def describe_targets(scores: pd.DataFrame, per_label: pd.DataFrame) -> list[str]:
    """Return a sentence about the labels that abstain, and one about the cost of the targets.

    The result is empty if the target of all labels is F1. The arguments are the tables that
    `tabulate_scores` and `tabulate_labels` return.
    """
    if "target" not in per_label:
        return []
    value = scores.set_index(["predictor", "metric"])["value"]
    # The precision is not defined if no label is predicted.
    averages = ("recall", "precision")[: 1 + (value["model", "recall_micro"] > 0)]
    cost = " and ".join(
        f"{name} is {value['model', f'{name}_micro']:.2f} instead of "
        f"{value['model at best F1', f'{name}_micro']:.2f}"
        for name in averages
    )
    limited = per_label[per_label["target"] != str(F1)]
    names = limited.loc[limited["abstains"] == 1, "label"]
    reached = f"{len(limited) - len(names)} of {len(limited)} labels reach their target"
    listed = f"; these abstain: {name_labels([*names])}" if len(names) else ""
    kinds = ", ".join(dict.fromkeys(limited["target"]))
    return [
        f"Thresholds with a target ({kinds}): {reached}{listed}. Because of the targets, {cost} "
        "(micro averages)."
    ]


def name_labels(labels: Sequence[str], number: int = 20) -> str:
    """Return the first `number` labels, and how many other labels there are, as text."""
    more = f" and {len(labels) - number} more" if len(labels) > number else ""
    return ", ".join(labels[:number]) + more


def lower_bound(share: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the lower confidence bound of a share, such as 0.95 of 200 predictions.

    The bound is that of Clopper and Pearson (1934). If photos of a group are correlated, pass the
    effective number of photos as `sizes` (Korn and Graubard, 1998).
    """
    hits = share * sizes
    positive = hits > 0
    bounds = betaincinv(np.where(positive, hits, 1), sizes - hits + 1, 1 - CONFIDENCE)
    return np.asarray(np.where(positive, bounds, 0))


def _chance_to_pass(expected: np.ndarray, sizes: np.ndarray, goal: float) -> np.ndarray:
    """Return the probability that the bound of a share is at least `goal`.

    `expected` is the expected share, and `sizes` is the number of predictions.
    """
    needed = np.ceil(bdtrik(CONFIDENCE, sizes, goal) + 1)  # smallest number of hits that passes
    chances = betainc(needed, np.maximum(sizes - needed, 0) + 1, expected)
    return np.asarray(np.where(needed <= sizes, chances, 0))


def _effective_sizes(groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return the effective number of groups (see `effective_groups`) of the first n photos."""
    names = pd.Series(groups)
    earlier = names.groupby(names).cumcount().to_numpy()  # earlier photos of the same group
    return np.asarray(np.arange(1, len(names) + 1) ** 2 / np.cumsum(2 * earlier + 1))
