from itertools import pairwise

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.splitting.splits import split_groups, tabulate_rates, warn_rare

FRACTIONS = (0.8, 0.1, 0.1)


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    """Targets of 5 000 photos and 14 labels, the rarest on 1 % of the photos."""
    rates = np.geomspace(0.01, 0.3, 14)
    return (np.random.default_rng(0).random((5000, 14)) < rates).astype(np.uint8)


def names(count: int) -> list[str]:
    return [f"photo-{index}" for index in range(count)]


def test_every_label_is_as_frequent_in_each_split(targets: np.ndarray) -> None:
    assigned = split_groups(targets, names(5000), FRACTIONS, seed=0)
    assert np.bincount(assigned) / 5000 == pytest.approx(FRACTIONS, rel=0.02)
    for split in range(3):
        positives = targets[assigned == split].sum(axis=0)
        quota = FRACTIONS[split] * targets.sum(axis=0)
        assert positives == pytest.approx(quota, abs=1, rel=0.02)
    rare = targets[:, 0].astype(bool)
    chance = np.random.default_rng(0).choice(3, 5000, p=FRACTIONS)
    error = [
        np.abs(targets[a == s].mean(axis=0) / targets.mean(axis=0) - 1).max()
        for a in (assigned, chance)
        for s in (1, 2)
    ]
    assert max(error[:2]) < 0.25 * max(error[2:])
    assert set(assigned[rare]) == {0, 1, 2}


def test_groups_stay_whole(targets: np.ndarray) -> None:
    groups = [f"group-{index % 1700}" for index in range(5000)]
    assigned = split_groups(targets, groups, FRACTIONS, seed=0)
    sides: dict[str, set[int]] = {}
    for group, side in zip(groups, assigned, strict=True):
        sides.setdefault(group, set()).add(int(side))
    assert {len(found) for found in sides.values()} == {1}
    assert np.bincount(assigned) / 5000 == pytest.approx(FRACTIONS, rel=0.05)


def test_split_does_not_depend_on_the_order(targets: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(5000)
    groups = np.array(names(5000))
    first = split_groups(targets, list(groups), FRACTIONS, seed=0)
    second = split_groups(targets[order], list(groups[order]), FRACTIONS, seed=0)
    assert np.array_equal(first[order], second)


def test_most_photos_keep_their_split_when_others_are_added(targets: np.ndarray) -> None:
    before = split_groups(targets[:4750], names(4750), FRACTIONS, seed=0)
    after = split_groups(targets, names(5000), FRACTIONS, seed=0)
    assert (before != after[:4750]).mean() < 0.03
    other = split_groups(targets, names(5000), FRACTIONS, seed=1)
    assert (after != other).mean() > 0.2


def test_fraction_zero_gives_an_empty_split(targets: np.ndarray) -> None:
    assigned = split_groups(targets, names(5000), (0.8, 0.2, 0.0), seed=0)
    assert np.bincount(assigned, minlength=3)[2] == 0


@pytest.mark.parametrize("fractions", [FRACTIONS, (0.6, 0.2, 0.2), (0.8, 0.2, 0.0)])
@pytest.mark.parametrize("positives", [1, 3, 6, 9])
def test_many_rare_labels_do_not_change_the_sizes(
    positives: int, fractions: tuple[float, ...]
) -> None:
    """Each photo carries one of many rare labels; three in ten photos carry a common label."""
    carried = np.arange(600) // positives == np.arange(600 // positives)[:, None]
    common = np.random.default_rng(positives).random(600) < 0.3
    targets = np.column_stack([common, carried.T]).astype(np.int8)
    groups = [f"pair-{index % 300}" if index % 5 == 0 else f"{index}" for index in range(600)]
    assigned = split_groups(targets, groups, fractions, seed=0)
    quota = np.array(fractions) * 600
    assert np.bincount(assigned, minlength=3) == pytest.approx(quota, abs=1)
    positives_found = np.bincount(assigned[common], minlength=3)
    assert positives_found == pytest.approx(np.array(fractions) * common.sum(), abs=2)


@pytest.mark.parametrize(("count", "size", "sizes"), [(1, 2, "2, val 0"), (5, 20, "80, val 0")])
def test_too_few_groups_are_refused(count: int, size: int, sizes: str) -> None:
    message = (
        rf"val \(0.1 of the photos\) would be empty \(train {sizes}, .*\): {count * size} photos "
        rf"with known labels are too few \(number of groups: {count}, photos per group: {size} to "
        rf"{size}\): add photos, .* resize.duplicate_bits .* change split.val and split.test"
    )
    targets, groups = np.ones((count * size, 1), np.uint8), [str(i) for i in range(count)] * size
    with pytest.raises(InputError, match=message):
        split_groups(targets, groups, FRACTIONS, seed=0)
    if count == 5:
        assigned = split_groups(targets, groups, (0.6, 0.2, 0.2), seed=0)
        assert np.bincount(assigned).tolist() == [60, 20, 20]


def test_rates_and_deviations_are_tabulated(targets: np.ndarray) -> None:
    assigned = split_groups(targets, names(5000), FRACTIONS, seed=0)
    labels = [f"label-{index}" for index in range(14)]
    rates = tabulate_rates(targets, labels, assigned)
    assert len(rates) == 14 * 3
    row = rates[(rates["label"] == "label-3") & (rates["split"] == "val")].iloc[0]
    column = targets[assigned == 1, 3]
    assert (row["photos"], row["positives"]) == (len(column), column.sum())
    assert row["rate"] == pytest.approx(column.mean(), abs=1e-6)
    assert row["deviation"] == pytest.approx(column.mean() / targets[:, 3].mean() - 1, abs=1e-6)


def test_rare_labels_give_warnings() -> None:
    targets = np.zeros((40, 3), np.uint8)
    targets[::2, 0] = 1
    targets[0, 1] = 1
    assigned = np.arange(40) % 3
    warned = warn_rare(tabulate_rates(targets, ["common", "rare", "none"], assigned))
    assert warned == [
        "label 'rare' has no photos in val, test (1 in total): its scores are unreliable; add "
        "photos that show it",
        "label 'none' has no photos in train, val, test (0 in total): its scores are unreliable; "
        "add photos that show it",
    ]
    many = tabulate_rates(np.zeros((40, 366), np.uint8), list(map(str, range(366))), assigned)
    assert len(warn_rare(many)) == 21
    assert warn_rare(many)[20] == "346 more labels like these: see reports/split/rates.csv"


def test_partly_known_labels_are_as_frequent_in_each_split(
    targets: np.ndarray,
) -> None:
    """A third of six labels is unknown, and nearly all of one label."""
    rng = np.random.default_rng(1)
    hidden = rng.random(targets.shape) < [*[0.0] * 7, *[0.33] * 6, 0.98]
    partly = np.where(hidden, UNKNOWN, targets).astype(np.int8)
    assigned = split_groups(partly, names(5000), FRACTIONS, seed=0)
    assert np.bincount(assigned) / 5000 == pytest.approx(FRACTIONS, rel=0.02)
    for split, fraction in enumerate(FRACTIONS):
        part = partly[assigned == split]
        for value in (0, 1):
            quota = fraction * (partly == value).sum(axis=0)
            assert (part == value).sum(axis=0) == pytest.approx(quota, abs=1.5, rel=0.02)
    rates = tabulate_rates(partly, [str(label) for label in range(14)], assigned)
    for place, (_, row) in enumerate(rates.iterrows()):
        column = partly[assigned == place % 3, place // 3]
        known = column[column != UNKNOWN]
        counts = [len(column), len(known), known.sum()]
        assert row[["photos", "known", "positives"]].tolist() == counts
        assert row["rate"] == pytest.approx(known.mean(), abs=1e-6)


def test_split_without_known_labels_is_refused(targets: np.ndarray) -> None:
    partly = np.where(np.arange(5000)[:, None] < 2, targets.astype(np.int8), UNKNOWN)
    with pytest.raises(InputError, match=r"2 photos .* are too few \(number of groups: 2"):
        split_groups(partly, names(5000), FRACTIONS, seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_added_imports_move_no_photo_of_earlier_imports(seed: int) -> None:
    """Imports of different sizes, labels and unknown targets; groups that span imports."""
    rng = np.random.default_rng(seed)
    sizes = [*rng.integers(60, 800, 4).tolist(), 5]
    total = sum(sizes)
    imports = [name for name, size in zip("cabed", sizes, strict=True) for _ in range(size)]
    part = np.repeat(np.arange(5), sizes)
    rates = rng.uniform(0.02, 0.5, (5, 8))
    targets = (rng.random((total, 8)) < rates[part]).astype(np.int8)
    unlisted = rng.random((5, 8)) < 0.3  # labels that an import does not have
    unlisted[0] = [False] * 6 + [True] * 2
    unlisted[1, 6:] = False
    targets[unlisted[part]] = UNKNOWN
    groups = [f"group {number}" for number in rng.integers(0, total // 2, total)]
    ends = np.cumsum(sizes).tolist()
    assigned = [
        split_groups(targets[:end], groups[:end], FRACTIONS, 0, imports[:end]) for end in ends
    ]
    for earlier, later in pairwise(assigned):
        assert np.array_equal(earlier, later[: len(earlier)])
    # The first import is split as if it were the whole dataset, without the labels that it lacks.
    alone = split_groups(targets[: ends[0], :6], groups[: ends[0]], FRACTIONS, seed=0)
    assert np.array_equal(assigned[0], alone)
    for end, found in zip(ends, assigned, strict=True):
        assert np.bincount(found) / end == pytest.approx(FRACTIONS, rel=0.1, abs=2 / end)
        positives = (targets[:end] > 0).sum(axis=0)
        for split, fraction in enumerate(FRACTIONS):
            kept = (targets[:end][found == split] > 0).sum(axis=0)
            assert kept == pytest.approx(fraction * positives, rel=0.15, abs=3)
    sides: dict[str, set[int]] = {}
    for group, side in zip(groups, assigned[-1], strict=True):
        sides.setdefault(group, set()).add(int(side))
    assert {len(found) for found in sides.values()} == {1}
