import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.slices import slice_photos, tabulate_slices
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.losses import sigmoid

ORDER = ["dark", "medium", "bright"]


def make_dataset(images: np.ndarray) -> Dataset:
    rows = np.arange(len(images))
    names = [str(row) for row in rows]
    return Dataset(images, rows, np.zeros((len(images), 1)), ["a"], names, names)


def test_photos_are_assigned_to_groups() -> None:
    images = np.zeros((6, 16, 16, 3), np.uint8)
    images[:] = np.array([10, 20, 100, 110, 200, 210], np.uint8)[:, None, None, None]
    images[4, :, :, 0] = 255
    width, height = [10, 10, 30, 40, 50, 60], [20, 10, 20, 70, 80, 30]
    manifest = pd.DataFrame({"width": width, "height": height})
    found = slice_photos(make_dataset(images), manifest)
    assert {name: groups.tolist() for name, groups in found.items()} == {
        "brightness": ["dark", "dark", "medium", "medium", "bright", "bright"],
        "colour": ["gray", "gray", "gray", "gray", "colour", "gray"],
        "orientation": ["tall", "square", "wide", "tall", "tall", "wide"],
        "short side": ["small", "small", "medium", "large", "large", "medium"],
    }


def test_property_shared_by_all_photos_is_left_out() -> None:
    images = np.full((4, 8, 8, 3), 7, np.uint8)
    manifest = pd.DataFrame({"width": [128] * 4, "height": [128] * 4})
    assert slice_photos(make_dataset(images), manifest) == {}


def test_scores_of_each_group_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    logits = rng.normal(size=targets.shape) + targets
    predicted = logits > 0
    groups = pd.Categorical(["dark"] * 15 + ["bright"] * 25, ORDER)
    weights = bootstrap_weights(40, 200, seed=0)
    table = tabulate_slices({"brightness": groups}, targets, logits, predicted, weights)
    assert table["group"].tolist() == ["dark", "bright"]
    assert table["photos"].tolist() == [15, 25]
    dark = table.iloc[0]
    expected = f1_score(targets[:15], predicted[:15], average="micro")
    assert dark["f1_micro"] == pytest.approx(expected)
    assert dark["f1_micro_low"] < expected < dark["f1_micro_high"]
    wrong = (targets[:15] != predicted[:15]).sum(axis=1).mean()
    assert dark["errors_per_photo"] == pytest.approx(wrong)


def test_single_photo_has_no_interval() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 1]], np.uint8)
    predicted = targets.copy()
    predicted[4] = 1
    groups = pd.Categorical(["dark", "bright", "bright", "medium", "medium"], ORDER)
    weights = bootstrap_weights(5, 300, seed=0)
    table = tabulate_slices({"brightness": groups}, targets, targets * 2.0, predicted, weights)
    rows = table.set_index("group")
    assert rows["f1_micro"].tolist() == pytest.approx([1, 0.8, 1])
    assert np.isnan([rows["f1_micro_low"]["dark"], rows["f1_micro_high"]["dark"]]).all()
    # Resamples without photos of the group are ignored; they are no F1 of 0.
    assert rows["f1_micro_low"]["bright"] == 1
    assert rows["f1_micro_low"]["medium"] == pytest.approx(2 / 3)


def test_scores_of_known_entries_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 3)) < 0.4).astype(np.int8)
    logits = rng.normal(size=truth.shape) + truth
    known = rng.random(truth.shape) < 0.6
    groups = pd.Categorical(np.repeat(["dark", "bright", "medium"], [15, 20, 5]), ORDER)
    known[groups == "medium"] = False  # left out
    targets, predicted = np.where(known, truth, UNKNOWN), logits > 0
    weights = bootstrap_weights(40, 200, seed=0)
    table = tabulate_slices({"brightness": groups}, targets, logits, predicted, weights)
    assert table["group"].tolist() == ["dark", "bright"]
    for row, photos in zip(table.to_dict("records"), (15, 20), strict=True):
        chosen = known & (groups == row["group"])[:, None]
        assert (row["photos"], row["known"]) == (photos, chosen.sum())
        assert row["f1_micro"] == pytest.approx(f1_score(truth[chosen], predicted[chosen]))
        assert row["loss"] == pytest.approx(log_loss(truth[chosen], sigmoid(logits[chosen])))
        wrong = (truth[chosen] != predicted[chosen]).sum() / photos
        assert row["errors_per_photo"] == pytest.approx(wrong)
