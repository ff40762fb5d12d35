"""Multi-label stratified splits that keep groups whole and depend on content alone.

Every group draws a number in [0, 1) from a hash of its content and the seed, and the numbers
alone make a first split; the fewest moves that mend the label rates follow. So the order of the
files and their names do not matter, and most photos keep their side when others are added.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from phototag.base.errors import InputError
from phototag.dataset.manifest import SPLITS
from phototag.dataset.targets import all_known, is_known, label_rates


def split_groups(
    targets: np.ndarray, groups: Sequence[str], fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Split photos so that every label is as frequent in each split as in the whole.

    The cost of a split is the sum, over splits and labels, of the squared relative deviation of
    the number of positives from its quota; the number of photos and of unlabelled photos count as
    two labels more. So do, of a label that is not known for all photos, those for which it is
    known: its rate among them is then the same everywhere. Groups move one at a time, always the
    move that lowers the cost most, until none does. This is greedy descent on the aim of iterative
    stratification (Sechidis et al. 2011).

    Args:
        targets: 1, 0 or `UNKNOWN`, int8 [num_images, num_labels].
        groups: The group of each photo, [num_images]; a group is never divided. Its name must
            follow from the content, since it decides where the group falls.
        fractions: Share of each split, [num_splits], sum 1.
        seed: Draws another split of the same quality.

    Returns:
        The index of each photo's split, int64 [num_images].

    Raises:
        InputError: A split would be empty, or nothing be known in it.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    known = is_known(targets)
    unlabelled = (targets == 0).all(axis=1)
    columns = np.column_stack(
        [np.ones(len(targets)), unlabelled, targets > 0, known[:, ~known.all(axis=0)]]
    )
    counts = np.zeros((len(names), columns.shape[1]))
    np.add.at(counts, members, columns)

    draws = np.array([_draw(name, seed) for name in names])
    bounds = np.cumsum(fractions)[:-1]
    assigned = np.searchsorted(bounds, draws, side="right")
    _balance(assigned, counts, draws, np.concatenate([[0.0], bounds, [1.0]]))

    told = known.any(axis=1)
    sizes = np.bincount(assigned[members][told], minlength=len(fractions))
    for name, size, fraction in zip(SPLITS, sizes, fractions, strict=False):
        if size == 0 and fraction > 0:
            photos = f"{len(targets)} photos in {len(names)} groups"
            if not told.all():
                number = len(np.unique(members[told]))
                photos = f"{told.sum()} photos of known labels, in {number} groups,"
            raise InputError(f"{photos} are too few: {name} ({fraction:g} of them) stays empty")
    return assigned[members]


def check_whole(groups: Sequence[str], assigned: np.ndarray) -> None:
    """Make sure that no group stands in two splits.

    Raises:
        InputError: One does.
    """
    side: dict[str, int] = {}
    for group, split in zip(groups, assigned.tolist(), strict=True):
        if side.setdefault(group, split) != split:
            raise InputError(
                f"group {group} stands in {SPLITS[side[group]]} and {SPLITS[split]}: a score on "
                "such splits means nothing"
            )


def tabulate_rates(
    targets: np.ndarray, labels: Sequence[str], assigned: np.ndarray
) -> pd.DataFrame:
    """Count each label in each split.

    Args:
        targets: 1, 0 or `UNKNOWN`, int8 [num_images, num_labels].
        labels: Their names, [num_labels].
        assigned: The index of each photo's split, [num_images].

    Returns:
        label, split, photos (in the split), known (of them; only where some are not), positives,
        rate (of those that are known, 0..1; empty where none is), and deviation: of the rate from
        that of all photos, relative to it; empty for a label without positives.
    """
    overall = label_rates(targets)
    rows = []
    for index, label in enumerate(labels):
        for split in np.unique(assigned):
            column = targets[assigned == split, index]
            known, positives = is_known(column).sum(), (column > 0).sum()
            rate = positives / known if known else np.nan
            deviation = rate / overall[index] - 1 if overall[index] else np.nan
            rows.append([label, SPLITS[split], len(column), known, positives, rate, deviation])
    columns = ["label", "split", "photos", "known", "positives", "rate", "deviation"]
    table = pd.DataFrame(rows, columns=columns).round({"rate": 6, "deviation": 6})
    return table.drop(columns="known") if all_known(targets) else table


def warn_rare(rates: pd.DataFrame) -> list[str]:
    """Say which labels are too rare to stand in every split, a sentence each."""
    warned = []
    for label, rows in rates.groupby("label", sort=False):
        empty = list(rows.loc[rows["positives"] == 0, "split"])
        total, num_splits = int(rows["positives"].sum()), len(rows)
        if total < num_splits or empty:
            photos = "1 photo" if total == 1 else f"{total} photos"
            missing = f"; there is none in {', '.join(empty)}" if empty else ""
            warned.append(
                f"the label {label!r} has {photos} for {num_splits} splits{missing}: its scores "
                "mean little"
            )
    return warned


def _draw(name: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _balance(
    assigned: np.ndarray, counts: np.ndarray, draws: np.ndarray, edges: np.ndarray
) -> None:
    """Move groups between splits, in place, while that lowers the cost.

    Groups with equal counts are alike to the cost, so the best move is sought among the kinds of
    group (hundreds), not the groups. Of the kind, the group whose draw lies nearest moves.
    """
    kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    num_splits = len(edges) - 1
    quota = np.diff(edges)[:, None] * counts.sum(axis=0)
    # A label without positives, or a split of share 0, has quota 0: any content there costs much.
    weight = 1 / np.maximum(quota, 1e-3) ** 2
    have = np.zeros_like(quota)
    np.add.at(have, assigned, counts)
    population = np.zeros((num_splits, len(kinds)), np.int64)
    np.add.at(population, (assigned, kind_of), 1)
    same = np.eye(num_splits, dtype=bool)[:, :, None]

    # One group of counts k more: (gap + k)^2 - gap^2 = k^2 + 2 gap k; one less: k^2 - 2 gap k.
    square = weight @ (kinds**2).T
    while True:
        linear = 2 * (weight * (have - quota)) @ kinds.T
        change = (square - linear)[:, None, :] + (square + linear)[None, :, :]
        change[same | (population == 0)[:, None, :]] = np.inf
        source, target, kind = np.unravel_index(np.argmin(change), change.shape)
        if change[source, target, kind] > -1e-9:
            return
        candidates = np.flatnonzero((assigned == source) & (kind_of == kind))
        distance = np.maximum(
            edges[target] - draws[candidates], draws[candidates] - edges[target + 1]
        )
        assigned[candidates[np.argmin(distance)]] = target
        have[source] -= kinds[kind]
        have[target] += kinds[kind]
        population[source, kind] -= 1
        population[target, kind] += 1
