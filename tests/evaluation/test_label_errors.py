import numpy as np

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.label_errors import find_label_errors


def test_planted_errors_are_found_first() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((500, 3)) < 0.3).astype(np.uint8)
    probabilities = np.clip(0.1 + 0.8 * truth + rng.normal(0, 0.05, truth.shape), 0, 1)
    given = truth.copy()
    planted = {(3, 0), (40, 1), (77, 2), (200, 0)}
    for photo, label in planted:
        given[photo, label] ^= 1
        probabilities[photo, label] = (
            0.05 + 0.9 * truth[photo, label]
        )  # more certain than on average
    found = find_label_errors(given, probabilities)
    first = found.head(len(planted))
    assert set(zip(first["photo"], first["label"], strict=True)) == planted
    assert found["margin"].is_monotonic_decreasing
    row = found.iloc[0]
    assert row["given"] == given[int(row["photo"]), int(row["label"])]
    assert row["probability"] == probabilities[int(row["photo"]), int(row["label"])]
    assert ((found["probability"] > 0.5) != found["given"]).all()


def test_confidence_is_relative_to_the_label() -> None:
    # The probability of the first label is at most 0.7, so 0.7 is confident for it.
    given = np.array([[1, 1], [1, 1], [0, 0], [0, 0], [0, 0]], np.uint8)
    probabilities = np.array([[0.7, 0.95], [0.7, 0.95], [0.7, 0.7], [0.1, 0.1], [0.1, 0.1]])
    found = find_label_errors(given, probabilities)
    assert found[["photo", "label"]].to_numpy().tolist() == [[2, 0]]


def test_labels_with_a_single_answer_are_left_out() -> None:
    given = np.array([[0, 1], [0, 1], [0, 1]], np.uint8)
    found = find_label_errors(given, np.array([[0.9, 0.1]] * 3))
    assert found.empty
    assert list(found.columns) == ["photo", "label", "given", "probability", "margin"]


def test_unknown_entries_are_ignored() -> None:
    rng = np.random.default_rng(3)
    given = (rng.random((200, 2)) < 0.4).astype(np.int8)
    probabilities = rng.random(given.shape)
    known = rng.random(given.shape) < 0.5
    found = find_label_errors(np.where(known, given, UNKNOWN), probabilities)
    expected = []
    for label in range(2):
        rows = np.flatnonzero(known[:, label])
        alone = find_label_errors(given[rows, label, None], probabilities[rows, label, None])
        photos = zip(rows[alone["photo"]], alone["margin"], strict=True)
        expected += [(photo, label, margin) for photo, margin in photos]
    assert len(expected) > 20
    expected.sort(key=lambda row: -row[2])
    assert list(zip(found["photo"], found["label"], strict=True)) == [e[:2] for e in expected]
    np.testing.assert_allclose(found["margin"], [margin for *_, margin in expected])
