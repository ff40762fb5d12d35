"""The linear probe, compared with scikit-learn's logistic regression."""

import copy
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from torch import nn

from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.folds import FOLDS, assign_folds
from phototag.dataset.targets import UNKNOWN
from phototag.metrics.losses import binary_cross_entropy
from phototag.network.features import standardize_features
from phototag.network.model import Standardize
from phototag.schema.params import Params
from phototag.training import linear_probe
from phototag.training.linear_probe import (
    fit_linear_probe,
    minimize_loss,
    predict_out_of_fold,
)
from phototag.training.losses import build_loss, skip_unknown
from tests.processes import run_together

WIDTH, LABELS = 24, 3


def draw(count: int, seed: int = 0) -> Dataset:
    """Return features that predict the labels; the last label is rare."""
    rng = np.random.default_rng(seed)
    features = rng.normal(3, [0.1, *range(1, WIDTH)], (count, WIDTH)).astype(np.float32)
    logits = (features - 3) @ np.random.default_rng(1).normal(0, 0.03, (WIDTH, LABELS))
    targets = logits + rng.logistic(size=(count, LABELS)) > [0, 1, 3]
    return Dataset(
        images=features,
        rows=np.arange(count),
        targets=targets.astype(np.uint8),
        labels=list("abc"),
        files=list(map(str, range(count))),
        sha256=list(map(str, range(count))),
    )


TRAIN, VAL = draw(150), draw(200, seed=2)


def build() -> nn.Sequential:
    torch.manual_seed(0)
    whole = nn.Sequential(
        nn.Identity(), nn.Identity(), Standardize(WIDTH), nn.Linear(WIDTH, LABELS)
    )
    standardize_features(whole[2], TRAIN.images, TRAIN.rows)
    return whole[2:]  # the names of the layers stay


@pytest.fixture
def params(params_values: dict[str, Any]) -> Params:
    values = copy.deepcopy(params_values)
    values |= {"optimizer": "lbfgs", "weight_decay": 1.0, "epochs": 14}
    values["model"] |= {"name": "resnet18", "weights": "DEFAULT", "freeze": True, "linear": []}
    return Params.model_validate(values)


@pytest.mark.parametrize("chunk", [linear_probe.CHUNK, 70])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("l2", [0.1, 0.001])
def test_linear_probe_matches_logistic_regression(
    monkeypatch: pytest.MonkeyPatch, chunk: int, resident: bool, l2: float
) -> None:
    monkeypatch.setattr(linear_probe, "CHUNK", chunk)
    if not resident:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=0))
    model = build()
    loss = minimize_loss(model, build_loss("bce", 0, None), TRAIN, l2)
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    with torch.no_grad():
        logits = model(torch.from_numpy(TRAIN.images)).numpy()
    assert loss == pytest.approx(binary_cross_entropy(TRAIN.targets, logits), rel=1e-5)
    # scikit-learn minimises the sum of the losses of one label.
    oracle = LogisticRegression(C=1 / (len(TRAIN) * LABELS * l2), tol=1e-8, max_iter=1000)
    for label in range(LABELS):
        expected = oracle.fit(features, TRAIN.targets[:, label]).decision_function(features)
        np.testing.assert_allclose(logits[:, label], expected, atol=0.03)


def test_best_l2_strength_is_selected_on_val(params: Params) -> None:
    model = build()
    steps = list(fit_linear_probe(model, TRAIN, VAL, params))
    best = steps[-1]["best_step"]
    assert 1 < best < params.epochs, "the best strength is the strongest or the weakest"
    assert all(a["train_loss"] > b["train_loss"] for a, b in pairwise(steps))
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    held_out = model[0](torch.from_numpy(VAL.images)).numpy()
    found = []
    for step in steps:
        l2 = step["l2"]
        assert l2 == pytest.approx(10 ** (-(step["step"] - 1) / 4))
        logits = [
            LogisticRegression(C=1 / (len(TRAIN) * LABELS * l2), tol=1e-8, max_iter=1000)
            .fit(features, TRAIN.targets[:, label])
            .decision_function(held_out)
            for label in range(LABELS)
        ]
        found.append(binary_cross_entropy(VAL.targets, np.stack(logits, axis=1)))
    assert [step["val_loss"] for step in steps] == pytest.approx(found, abs=1e-3)
    assert best == int(np.argmin(found)) + 1


def test_linear_probe_resumes_to_the_same_bytes(params: Params, tmp_path: Path) -> None:
    params = params.model_copy(update={"epochs": 4})
    whole, resumed, state = build(), build(), tmp_path / "state.pt"
    records = list(fit_linear_probe(whole, TRAIN, VAL, params))
    list(islice(fit_linear_probe(build(), TRAIN, VAL, params, state), 2))
    again = list(fit_linear_probe(resumed, TRAIN, VAL, params, state))
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert records == again


def test_out_of_fold_logits_match_cross_validation(params: Params) -> None:
    """Each group has two photos; scikit-learn fits each fold."""
    groups = [str(index // 2) for index in range(len(TRAIN))]
    train, model = replace(TRAIN, groups=groups), build()
    before = copy.deepcopy(model.state_dict())
    logits = predict_out_of_fold(model, train, params, l2=0.1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert logits.dtype == np.float32
    folds = assign_folds(train, params.seed)
    features, l2 = model[0](torch.from_numpy(TRAIN.images)).numpy(), 0.1
    for fold in range(1, FOLDS + 1):
        seen = folds != fold
        assert 110 < seen.sum() < 130
        oracle = LogisticRegression(C=1 / (seen.sum() * LABELS * l2), tol=1e-8, max_iter=1000)
        for label in range(LABELS):
            oracle.fit(features[seen], TRAIN.targets[seen, label])
            expected = oracle.decision_function(features[~seen])
            np.testing.assert_allclose(logits[~seen, label], expected, atol=0.03)
    again = predict_out_of_fold(model, train, params, l2=0.1)
    assert np.array_equal(again, logits)
    weighed = params.model_copy(update={"pos_weight": True})
    higher = predict_out_of_fold(model, train, weighed, l2=0.1)
    assert higher[:, 2].mean() > logits[:, 2].mean() + 1, "the rare label's positives weigh more"


def test_out_of_fold_logits_of_two_photos_are_finite(params: Params) -> None:
    few = take_photos(TRAIN, np.arange(2))
    few.targets[:] = [[1, 0, 0], [1, 0, 1]]
    logits = predict_out_of_fold(build(), few, params, l2=0.3)
    assert np.isfinite(logits).all()
    assert logits.shape == (2, LABELS)


def fit_probe(params: Params, train: Dataset) -> list[float]:
    model = build()
    losses = [step["val_loss"] for step in fit_linear_probe(model, train, VAL, params)]
    return [*losses, *predict_out_of_fold(model, train, params, 0.5).ravel()[:30].tolist()]


@pytest.mark.parametrize("count", [150, 1])
def test_two_processes_fit_the_same_probe(params: Params, tmp_path: Path, count: int) -> None:
    """With one photo, the second process has none."""
    few = take_photos(TRAIN, np.arange(count))
    params = params.model_copy(update={"epochs": 3})
    alone = fit_probe(params, few)
    for together in run_together(tmp_path, fit_probe, params, few):
        assert together[:3] == pytest.approx(alone[:3], abs=1e-4)  # losses; then logits
        assert together[3:] == pytest.approx(alone[3:], abs=1e-2)


@pytest.mark.parametrize(
    ("group", "key", "value", "message"),
    [
        ("model", "freeze", False, "set model.freeze to true"),
        ("model", "name", "conv", "set model.name to a backbone"),
        ("model", "linear", [64], "set model.linear to \\[\\]"),
        ("model", "dropout", 0.5, "set model.dropout to 0"),
        ("train", "ema", 0.9, "set train.ema to 0"),
        ("train", "clip_norm", 1.0, "set train.clip_norm to 0"),
        ("train", "compile", True, "set train.compile to false"),
    ],
)
def test_params_that_lbfgs_does_not_support_are_refused(
    params: Params, group: str, key: str, value: Any, message: str
) -> None:
    values = params.model_dump()
    values[group][key] = value
    with pytest.raises(ValidationError, match=message):
        Params.model_validate(values)


def test_unknown_targets_are_ignored() -> None:
    """scikit-learn gets the photos for which the label is known."""
    known = np.random.default_rng(5).random(TRAIN.targets.shape) < [0.5, 0.7, 1.0]
    train = replace(TRAIN, targets=np.where(known, TRAIN.targets.astype(np.int8), UNKNOWN))
    model, l2 = build(), 0.1
    loss = skip_unknown(build_loss("bce", 0, None))
    final = minimize_loss(model, loss, train, l2)
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    with torch.no_grad():
        logits = model(torch.from_numpy(TRAIN.images)).numpy()
    assert final == pytest.approx(binary_cross_entropy(train.targets, logits), rel=1e-5)
    oracle = LogisticRegression(C=1 / (known.sum() * l2), tol=1e-8, max_iter=1000)
    for label, rows in enumerate(known.T):
        oracle.fit(features[rows], TRAIN.targets[rows, label])
        expected = oracle.decision_function(features)
        np.testing.assert_allclose(logits[:, label], expected, atol=0.03)
