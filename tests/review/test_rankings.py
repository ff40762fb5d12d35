from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import entropy

from phototag.base.errors import InputError
from phototag.dataset.dataset import read_datasets
from phototag.dataset.targets import UNKNOWN
from phototag.network.inference import predict_logits
from phototag.review.evidence import IMAGES, MANIFEST, SPLITS, Evidence, read_evidence
from phototag.review.rankings import RANKINGS, measure_uncertainty, order_photos
from tests.models import LABELS
from tests.reviews import COPIES, DOUBTFUL, WRONG


def ask(evidence: Evidence, ranking: str) -> list[tuple[int, str]]:
    return [(question.photo, LABELS[question.label]) for question in RANKINGS[ranking](evidence)]


def test_evidence_has_the_order_of_images_npy(evidence: Evidence, project: Path) -> None:
    names = ("images.npy", "manifest.csv", "splits.csv")
    parts = read_datasets(*(project / "data" / name for name in names))
    assert evidence.photos.rows.tolist() == list(range(40))
    for split, part in parts.items():
        assert (evidence.unseen[part.rows] == (split != "train")).all()
        assert [evidence.photos.files[row] for row in part.rows] == part.files
        assert (evidence.photos.targets[part.rows] == part.targets).all()
        logits = predict_logits(evidence.network, part, next(evidence.network.buffers()).device)
        assert evidence.probabilities[part.rows] == pytest.approx(1 / (1 + np.exp(-logits)))
    # The inputs of the output layer are the bright channels.
    means = evidence.photos.images.reshape(40, -1, 3).max(axis=1).astype(float)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarity = means @ means[5]
    similarity[5] = -1
    assert evidence.find_similar(5, 3)[0] in np.argsort(-similarity)[:8]


def test_errors_are_wrong_labels_of_unseen_photos(evidence: Evidence, project: Path) -> None:
    asked = ask(evidence, "errors")
    expected = {(row, label) for row, label in WRONG if evidence.unseen[row]}
    assert expected <= set(asked)
    assert all(evidence.unseen[row] for row, _ in asked)
    # With out-of-fold logits of train and val, photos of train are unseen too.
    parts = read_datasets(*(project / name for name in (IMAGES, MANIFEST, SPLITS)))
    train = np.concatenate([parts["train"].rows, parts["val"].rows])
    sure = np.random.default_rng(0).uniform(1, 5, (len(train), 3))
    logits = np.where(evidence.probabilities[train] > 0.5, sure, -sure).astype(np.float32)
    np.save(project / "models/out_of_fold.npy", logits[None])
    with_train = read_evidence(project)
    assert with_train.probabilities[train] == pytest.approx(1 / (1 + np.exp(-logits)))
    found = {entry for entry in ask(with_train, "errors") if entry[0] in train}
    assert found <= {*WRONG, *((row, "green") for row in COPIES)}
    assert len(found) >= 3


def test_next_asks_about_unknown_labels_photo_by_photo(evidence: Evidence) -> None:
    asked = ask(evidence, "next")
    assert sorted(asked) == sorted(DOUBTFUL)
    photos = [photo for photo, _ in asked]
    assert photos == [photo for photo in dict.fromkeys(photos) for _ in LABELS]
    for photo in dict.fromkeys(photos):
        labels = [LABELS.index(label) for row, label in asked if row == photo]
        scores = evidence.probabilities[photo, labels]
        assert scores.tolist() == sorted(scores, reverse=True)
    known = replace(evidence.photos, targets=np.abs(evidence.photos.targets))
    assert UNKNOWN not in known.targets
    assert ask(replace(evidence, photos=known), "next") == []


def test_duplicates_ask_once_about_equal_bytes(evidence: Evidence) -> None:
    expected = [(row, "green") for row in COPIES]
    assert [entry for entry in ask(evidence, "duplicates") if entry[1] == "green"] == expected
    sha256 = evidence.photos.sha256.copy()
    sha256[COPIES[1]] = sha256[COPIES[0]]
    same = replace(evidence, photos=replace(evidence.photos, sha256=sha256))
    assert [e for e in ask(same, "duplicates") if e[1] == "green"] == expected[:1]


def test_project_without_model_is_refused(project: Path) -> None:
    (project / "models/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"models/model\.safetensors is missing: run `dvc repro`"):
        read_evidence(project)


def test_model_with_other_labels_is_refused(project: Path) -> None:
    manifest = project / "data/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",red\n", ",crimson\n", 1))
    with pytest.raises(InputError, match=r"have different labels: run `dvc repro`"):
        read_evidence(project)


def test_uncertainty_is_the_entropy_of_unknown_entries() -> None:
    rng = np.random.default_rng(0)
    targets = rng.choice([1, 0, UNKNOWN], (20, 5))
    targets[3] = 1
    probabilities = rng.random((20, 5))
    probabilities[0] = [0, 1, 0.5, 0, 1]
    each = entropy(np.stack([probabilities, 1 - probabilities]), axis=0)
    expected = np.where(targets == UNKNOWN, each, 0).sum(axis=1)
    assert measure_uncertainty(targets, probabilities) == pytest.approx(expected, abs=1e-9)
    assert measure_uncertainty(targets, probabilities)[3] == 0


def test_photos_of_different_scenes_come_first() -> None:
    rng = np.random.default_rng(0)
    scenes = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    shots = np.repeat(scenes, 10, axis=0) + 0.01 * rng.normal(size=(40, 16))
    shots /= np.linalg.norm(shots, axis=1, keepdims=True)
    # All photos of one scene are less certain than all photos of the next scene.
    uncertainty = np.repeat([1.0, 0.9, 0.8, 0.7], 10)
    assert (order_photos(uncertainty, shots, 4) // 10).tolist() == [0, 1, 2, 3]


def test_equally_distant_photos_are_ordered_by_uncertainty() -> None:
    far = np.eye(5)
    uncertainty = np.array([0.1, 0.0, 0.4, 0.3, 0.0])
    assert order_photos(uncertainty, far, 10).tolist() == [2, 3, 0]
    assert order_photos(uncertainty, far, 2).tolist() == [2, 3]
    assert order_photos(np.zeros(5), far, 2).tolist() == []


def test_equal_photos_are_returned_once_each() -> None:
    same = np.ones((6, 1))
    assert sorted(order_photos(np.ones(6), same, 6)) == list(range(6))
