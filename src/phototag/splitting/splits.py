"""Stratified multi-label splits that keep groups whole.

A hash of each group's name and the seed yields a number in [0, 1), which determines the group's
initial split. Groups are then moved one by one to balance the label frequencies. The result does
not depend on file names or their order. The groups of the first import are assigned as if it were
the whole dataset; then those of the next import are assigned, and so on. So if an import is added,
the photos of the earlier imports stay in their splits.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from phototag.base.errors import InputError
from phototag.dataset.manifest import SPLITS
from phototag.dataset.targets import all_known, is_known, label_rates

MAX_SIZE_ERROR = 0.05  # maximum relative deviation of a split's size before sizes get priority
SHOWN = 20  # maximum number of labels with a separate warning


def split_groups(
    targets: np.ndarray,
    groups: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    imports: Sequence[str] | None = None,
) -> np.ndarray:
    """Split photos so that each label is as frequent in each split as in the whole dataset.

    The cost of an assignment is the sum, over splits and labels, of the squared relative deviation
    of the number of positives from its quota. The number of photos and the number of photos
    without labels are balanced in the same way. For each label with unknown targets, the number of
    known targets is balanced too. Each step makes the move that lowers the cost most, until no move
    lowers it: greedy descent on the objective of iterative stratification (Sechidis et al. 2011).
    Labels that are too rare for each split to get a photo weigh less. If there are such labels, or
    if sizes deviate from their quotas, a second descent gives priority to the sizes.

    Args:
        targets: 1, 0 or `UNKNOWN`, int8 [num_images, num_labels].
        groups: Name of each photo's group, [num_images]. All photos of a group are assigned to the
            same split.
        fractions: Share of the photos that each split gets, [num_splits]; the sum is 1.
        seed: Seed of the hash; a different seed gives a different split of similar quality.
        imports: Import of each photo, [num_images], in the order of the imports (default: all
            photos are of one import). A group belongs to the first import of its photos.

    Returns:
        Index of each photo's split in `fractions`, int64 [num_images].

    Raises:
        InputError: A split with a positive share would get no photos with known targets.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    part = pd.factorize(np.asarray(imports or [""] * len(groups), object))[0]
    home = np.full(len(names), len(part))  # number of each group's first import
    np.minimum.at(home, members, part)

    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    draws = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    bounds = np.cumsum(fractions)[:-1]
    assigned = np.searchsorted(bounds, draws, side="right")
    edges = np.concatenate([[0.0], bounds, [1.0]])
    for current in np.unique(home):
        rows, new = part <= current, home == current
        counts = _count(targets[rows], members[rows], len(names))
        have = np.zeros((len(fractions), counts.shape[1]))
        np.add.at(have, assigned[home <= current], counts[home <= current])
        assigned[new] = _balance(assigned[new], counts[new], draws[new], edges, have)

    judged = is_known(targets).any(axis=1)
    sizes = np.bincount(assigned[members][judged], minlength=len(fractions))
    for name, size, fraction in zip(SPLITS, sizes, fractions, strict=False):
        if size == 0 and fraction > 0:
            _, group_sizes = np.unique(members[judged], return_counts=True)
            found = ", ".join(map("{} {}".format, SPLITS, sizes))
            raise InputError(
                f"the split {name} ({fraction:g} of the photos) would be empty ({found}): "
                f"{judged.sum()} photos with known labels are too few (number of groups: "
                f"{len(group_sizes)}, photos per group: {min(group_sizes, default=0)} to "
                f"{max(group_sizes, default=0)}): add photos, divide large groups (column group of "
                "sources.csv, or a lower resize.duplicate_bits for near duplicates), or change "
                "split.val and split.test"
            )
    return assigned[members]


def tabulate_rates(
    targets: np.ndarray, labels: Sequence[str], assigned: np.ndarray
) -> pd.DataFrame:
    """Count the photos and the positives of each label in the split of each photo (`assigned`).

    Returns:
        A table with the columns label; split; photos (number of photos in the split); known (number
        of known targets, only if some are unknown); positives; rate (positives per known target,
        0..1, empty if no target is known); and deviation (relative difference between `rate` and
        the rate among all photos, empty for a label without positives).
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
    """Return warnings about the first `SHOWN` labels without positives in a split of `rates`."""
    total = rates.groupby("label")["positives"].sum().to_dict()
    empty = rates[rates["positives"] == 0].groupby("label", sort=False)["split"].agg(", ".join)
    warnings = [
        f"label {label!r} has no photos in {splits} ({total[label]} in total): its scores are "
        "unreliable; add photos that show it"
        for label, splits in empty.items()
    ]
    if more := warnings[SHOWN:]:
        warnings[SHOWN:] = [f"{len(more)} more labels like these: see reports/split/rates.csv"]
    return warnings


def _count(targets: np.ndarray, members: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the counts that `split_groups` balances, float64 [num_groups, num_columns].

    The columns are the numbers of photos, of unlabelled photos, of positives of each label, and of
    known targets of each label with unknown targets. Labels without known targets are left out.
    """
    known = is_known(targets)
    targets, known = targets[:, known.any(axis=0)], known[:, known.any(axis=0)]
    unlabelled = (targets == 0).all(axis=1)
    columns = np.column_stack(
        [np.ones(len(targets)), unlabelled, targets > 0, known[:, ~known.all(axis=0)]]
    )
    counts = np.zeros((num_groups, columns.shape[1]))
    np.add.at(counts, members, columns)
    return counts


def _balance(
    assigned: np.ndarray,
    counts: np.ndarray,
    draws: np.ndarray,
    edges: np.ndarray,
    have: np.ndarray,
) -> np.ndarray:
    """Move groups between splits until no move lowers the cost; return the new splits.

    `have` are the counts of each split, which include those of groups that cannot be moved.
    """
    # Moving any group with the same counts changes the cost by the same amount, so the search
    # covers the distinct counts (hundreds) instead of all groups. Among the groups with the best
    # counts, the group whose number in `draws` is nearest to the target split is moved.
    kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    num_splits = len(edges) - 1
    quota = np.diff(edges)[:, None] * have.sum(axis=0)
    # The quota is 0 for a label without positives and for a split with fraction 0. The small
    # divisor gives each photo in such a split a high cost.
    weight = 1 / np.maximum(quota, 1e-3) ** 2
    # A split cannot hold a fraction of a photo, so the cost of a label that is too rare for one
    # photo in each split never gets low. All such labels together weigh as much as one label.
    rare = (quota[np.diff(edges) > 0] < 0.99).any(axis=0) & (quota > 0).any(axis=0)
    rare[:2] = False  # numbers of photos and of unlabelled photos
    weight[:, rare] = np.minimum(weight[:, rare], 1) / max(rare.sum(), 1)
    population = np.zeros((num_splits, len(kinds)), np.int64)
    np.add.at(population, (assigned, kind_of), 1)
    same = np.eye(num_splits, dtype=bool)[:, :, None]

    # Let gap = have - quota. Adding a group with counts k changes the cost by
    # (gap + k)^2 - gap^2 = k^2 + 2 gap k, and removing the group changes it by k^2 - 2 gap k.
    square = weight @ (kinds**2).T
    fixing_sizes = False
    while True:
        gap = have - quota
        linear = 2 * (weight * gap) @ kinds.T
        change = (square - linear)[:, None, :] + (square + linear)[None, :, :]
        change[same | (population == 0)[:, None, :]] = np.inf
        source, target, kind = np.unravel_index(np.argmin(change), change.shape)
        if change[source, target, kind] > (-1e-6 if fixing_sizes else -1e-9):
            sizes_differ = np.abs(gap[:, 0]) > np.maximum(2, MAX_SIZE_ERROR * quota[:, 0])
            if fixing_sizes or not (rare.any() or sizes_differ.any()):
                return assigned
            # Weigh the sizes more than the labels, because balancing the labels changed the sizes.
            fixing_sizes = True
            weight *= 0.01
            weight[:, 0] = np.maximum(weight[:, 0], 1)
            square = weight @ (kinds**2).T
            continue
        candidates = np.flatnonzero((assigned == source) & (kind_of == kind))
        distance = np.maximum(
            edges[target] - draws[candidates], draws[candidates] - edges[target + 1]
        )
        assigned[candidates[np.argmin(distance)]] = target
        have[source] -= kinds[kind]
        have[target] += kinds[kind]
        population[source, kind] -= 1
        population[target, kind] += 1
