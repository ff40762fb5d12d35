"""The head, solved: scikit-learn's logistic regression is the oracle."""

import copy
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from torch import nn

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.metrics.losses import binary_cross_entropy
from phototag.network.features import standardize_features
from phototag.network.model import Standardize
from phototag.schema.params import Params, read_all_params
from phototag.training import loop, solver
from phototag.training.losses import build_loss, skip_unknown
from tests.processes import run_together

WIDTH, LABELS = 24, 3


def draw(count: int, seed: int = 0) -> Dataset:
    """Features that say something of the labels; the last label is rare."""
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
    return whole[2:]  # its layers keep their names


@pytest.fixture
def params(params_values: dict[str, Any]) -> Params:
    values = copy.deepcopy(params_values)
    values |= {"optimizer": "lbfgs", "weight_decay": 1.0, "epochs": 14}
    values["model"] |= {"name": "resnet18", "weights": "DEFAULT", "freeze": True, "linear": []}
    return Params.model_validate(values)


@pytest.mark.parametrize("chunk", [solver.CHUNK, 70])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("strength", [0.1, 0.001])
def test_it_is_logistic_regression(
    monkeypatch: pytest.MonkeyPatch, chunk: int, resident: bool, strength: float
) -> None:
    monkeypatch.setattr(solver, "CHUNK", chunk)
    if not resident:
        monkeypatch.setattr(solver, "physical_memory", lambda: 0)
    model = build()
    loss = solver.solve_epoch(
        model, build_loss("bce", 0, None), solver.build_solver(model), TRAIN, strength
    )
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    with torch.no_grad():
        logits = model(torch.from_numpy(TRAIN.images)).numpy()
    assert loss == pytest.approx(binary_cross_entropy(TRAIN.targets, logits), rel=1e-5)
    # Its loss is a sum, of one label alone.
    oracle = LogisticRegression(C=1 / (len(TRAIN) * LABELS * strength), tol=1e-8, max_iter=1000)
    for label in range(LABELS):
        expected = oracle.fit(features, TRAIN.targets[:, label]).decision_function(features)
        np.testing.assert_allclose(logits[:, label], expected, atol=0.03)


def test_the_strength_is_chosen_on_val(params: Params) -> None:
    model = build()
    epochs = list(loop.fit(model, TRAIN, VAL, params))
    best = epochs[-1].kept
    assert 1 < best < params.epochs, "the path ends on both sides of what suits val"
    assert all(a.train_loss > b.train_loss for a, b in pairwise(epochs))
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    held_out = model[0](torch.from_numpy(VAL.images)).numpy()
    found = []
    for epoch in range(1, params.epochs + 1):
        strength = 10 ** (-(epoch - 1) / 4)
        logits = [
            LogisticRegression(C=1 / (len(TRAIN) * LABELS * strength), tol=1e-8, max_iter=1000)
            .fit(features, TRAIN.targets[:, label])
            .decision_function(held_out)
            for label in range(LABELS)
        ]
        found.append(binary_cross_entropy(VAL.targets, np.stack(logits, axis=1)))
    assert [epoch.val_loss for epoch in epochs] == pytest.approx(found, abs=1e-3)
    assert best == int(np.argmin(found)) + 1


def test_it_goes_on_to_the_same_bytes(params: Params, tmp_path: Path) -> None:
    params = params.model_copy(update={"epochs": 4})
    whole, resumed, state = build(), build(), tmp_path / "state.pt"
    records = list(loop.fit(whole, TRAIN, VAL, params))
    list(islice(loop.fit(build(), TRAIN, VAL, params, state), 2))
    again = list(loop.fit(resumed, TRAIN, VAL, params, state))
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [e.val_loss for e in records] == [e.val_loss for e in again]


def test_out_of_fold_is_cross_validation(params: Params) -> None:
    """Two photos of each group; scikit-learn solves each fold."""
    groups = [str(index // 2) for index in range(len(TRAIN))]
    train, model = replace(TRAIN, groups=groups), build()
    before = copy.deepcopy(model.state_dict())
    logits = solver.predict_out_of_fold(model, train, params, epoch=5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert logits.dtype == np.float32
    folds = np.random.default_rng([params.seed, 5]).permutation(75)
    folds = folds[np.unique(groups, return_inverse=True)[1]] % 5
    features, strength = model[0](torch.from_numpy(TRAIN.images)).numpy(), 10**-1
    for fold in range(5):
        seen = folds != fold
        assert 110 < seen.sum() < 130
        oracle = LogisticRegression(C=1 / (seen.sum() * LABELS * strength), tol=1e-8, max_iter=1000)
        for label in range(LABELS):
            oracle.fit(features[seen], TRAIN.targets[seen, label])
            expected = oracle.decision_function(features[~seen])
            np.testing.assert_allclose(logits[~seen, label], expected, atol=0.03)
    again = solver.predict_out_of_fold(model, train, params, epoch=5)
    assert np.array_equal(again, logits)
    weighed = params.model_copy(update={"pos_weight": True})
    higher = solver.predict_out_of_fold(model, train, weighed, epoch=5)
    assert higher[:, 2].mean() > logits[:, 2].mean() + 1, "the rare label's positives weigh more"


def test_out_of_fold_works_where_there_is_next_to_nothing(params: Params) -> None:
    few = take_photos(TRAIN, np.arange(2))
    few.targets[:] = [[1, 0, 0], [1, 0, 1]]
    logits = solver.predict_out_of_fold(build(), few, params, epoch=3)
    assert np.isfinite(logits).all()
    assert logits.shape == (2, LABELS)
    one = take_photos(TRAIN, np.arange(1))
    assert len(solver.predict_out_of_fold(build(), one, params, epoch=3)) == 0


def solve(params: Params, train: Dataset) -> list[float]:
    model = build()
    losses = [epoch.val_loss for epoch in loop.fit(model, train, VAL, params)]
    return [*losses, *solver.predict_out_of_fold(model, train, params, 2).ravel()[:30].tolist()]


@pytest.mark.parametrize("count", [150, 1])
def test_two_processes_solve_as_one(params: Params, tmp_path: Path, count: int) -> None:
    """Of one photo, the second process has none."""
    few = take_photos(TRAIN, np.arange(count))
    params = params.model_copy(update={"epochs": 3})
    alone = solve(params, few)
    for together in run_together(tmp_path, solve, params, few):
        assert together[:3] == pytest.approx(alone[:3], abs=1e-4)  # losses; then logits
        assert together[3:] == pytest.approx(alone[3:], abs=1e-2)


@pytest.mark.parametrize(
    ("group", "key", "value", "told"),
    [
        ("model", "freeze", False, "set model.freeze to true"),
        ("model", "name", "conv", "name a backbone in model.name"),
        ("model", "linear", [64], "set model.linear to \\[\\]"),
        ("model", "dropout", 0.5, "set model.dropout to 0"),
        ("train", "ema", 0.9, "set train.ema to 0"),
        ("train", "clip_norm", 1.0, "set train.clip_norm to 0"),
        ("train", "compile", True, "set train.compile to false"),
    ],
)
def test_what_cannot_be_solved_is_told(
    params: Params, tmp_path: Path, group: str, key: str, value: Any, told: str
) -> None:
    values = params.model_dump(mode="json")
    values[group][key] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=told):
        read_all_params(path)


def test_what_is_not_known_is_left_out(params: Params) -> None:
    """Of each label scikit-learn has the photos for which it is known."""
    known = np.random.default_rng(5).random(TRAIN.targets.shape) < [0.5, 0.7, 1.0]
    train = replace(TRAIN, targets=np.where(known, TRAIN.targets.astype(np.int8), UNKNOWN))
    model, strength = build(), 10**-1
    loss = skip_unknown(build_loss("bce", 0, None))
    ended = solver.solve_epoch(model, loss, solver.build_solver(model), train, strength)
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    with torch.no_grad():
        logits = model(torch.from_numpy(TRAIN.images)).numpy()
    assert ended == pytest.approx(binary_cross_entropy(train.targets, logits), rel=1e-5)
    oracle = LogisticRegression(C=1 / (known.sum() * strength), tol=1e-8, max_iter=1000)
    for label, rows in enumerate(known.T):
        oracle.fit(features[rows], TRAIN.targets[rows, label])
        expected = oracle.decision_function(features)
        np.testing.assert_allclose(logits[:, label], expected, atol=0.03)

    logits = solver.predict_out_of_fold(model, train, params, epoch=5)
    folds = np.random.default_rng([params.seed, 5]).permutation(len(TRAIN)) % 5
    order = np.argsort(np.array(TRAIN.files))  # groups are numbered by name
    of_photo = np.empty(len(TRAIN), int)
    of_photo[order] = folds
    for fold in range(5):
        seen = of_photo != fold
        oracle = LogisticRegression(C=1 / (known[seen].sum() * strength), tol=1e-8, max_iter=1000)
        for label, rows in enumerate(known.T):
            oracle.fit(features[seen & rows], TRAIN.targets[seen & rows, label])
            expected = oracle.decision_function(features[~seen])
            np.testing.assert_allclose(logits[~seen, label], expected, atol=0.03)


def test_a_small_head_leaves_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    bce = build_loss("bce", 0.0, None)

    def watched(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return bce(logits, targets)

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for small, expected in ((solver.SMALL, 2), (1, 4)):
            monkeypatch.setattr(solver, "SMALL", small)
            seen.clear()
            head = build()
            solver.solve_epoch(head, watched, solver.build_solver(head), TRAIN, 0.1)
            assert set(seen) == {expected}
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
