"""Probes, compared with scikit-learn's logistic regression."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.network.features import standardize_features
from phototag.network.model import Standardize
from phototag.schema.params import Params
from phototag.training import probes as module
from phototag.training.losses import training_loss
from phototag.training.probes import Probes

STRENGTHS = (0.1, 0.03, 0.01, 0.003)  # extrapolation starts with the third


def draw(count: int, width: int) -> Dataset:
    """Return photos with features that predict three labels, of which the last one is rare."""
    rng = np.random.default_rng(0)
    features = rng.normal(3, rng.uniform(0.1, 9, width), (count, width)).astype(np.float32)
    features[:, -1] = 7  # constant
    scores = features @ rng.normal(0, 0.3 / width, (width, 3))
    targets = scores - scores.mean(axis=0) + rng.logistic(size=(count, 3)) > [0, 1, 3]
    names = list(map(str, range(count)))
    return Dataset(features, np.arange(count), targets.astype(np.int8), [*"abc"], names, names)


def fit(photos: Dataset, used: np.ndarray, params: Params) -> tuple[Probes, np.ndarray]:
    """Fit probes for all `STRENGTHS`, and return them and the standardised features."""
    layer = Standardize(photos.images.shape[1])
    standardize_features(layer, photos.images, photos.rows)
    probes = Probes(photos, used, layer, params)
    for l2 in STRENGTHS:
        probes.fit(l2)
    return probes, np.asarray(layer(torch.from_numpy(photos.images)))


def choose_subsets(count: int) -> np.ndarray:
    """Return a subset of all photos and three others."""
    return np.asarray(np.arange(4)[:, None] != np.arange(count) % 3 + 1)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(("count", "width"), [(300, 24), (300, 150), (100, 400)])
def test_logits_match_logistic_regression(
    monkeypatch: pytest.MonkeyPatch,
    params: Params,
    count: int,
    width: int,
    unknown: bool,
    held: bool,
) -> None:
    monkeypatch.setattr(module, "CHUNK", 70)
    monkeypatch.setattr(module, "BLOCK", 2 * 4 * count)  # two labels at a time
    if not held:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=0))
    photos, used = draw(count, width), choose_subsets(count)
    known = np.random.default_rng(5).random(photos.targets.shape) < [0.5, 0.7, 1.0]
    photos.targets[unknown & ~known] = UNKNOWN
    probes, features = fit(photos, used, params)
    for number, own in enumerate(used):
        logits = probes.predict(np.full(count, number))
        total = (photos.targets[own] != UNKNOWN).sum()
        for label, targets in enumerate(photos.targets.T):
            rows = own & (targets != UNKNOWN)
            # scikit-learn minimises the sum of the losses of one label.
            oracle = LogisticRegression(C=1 / (total * STRENGTHS[-1]), tol=1e-8, max_iter=3000)
            expected = oracle.fit(features[rows], targets[rows]).decision_function(features)
            np.testing.assert_allclose(logits[:, label], expected, atol=0.02)
    mixed = probes.predict(np.arange(count) % 5 - 1)
    for number in range(4):
        own = np.arange(count) % 5 - 1 == number
        each = probes.predict(np.full(count, number))
        np.testing.assert_allclose(mixed[own], each[own], atol=1e-5)
    assert not mixed[::5].any()


@pytest.mark.parametrize(
    ("pos_weight", "settings"),
    [
        (True, {}),
        (True, {"label_smoothing": 0.2}),
        (False, {"loss": "focal"}),
        (False, {"loss": "focal", "label_smoothing": 0.2}),
        (False, {"loss": "asymmetric"}),
    ],
)
def test_gradient_of_other_losses_is_zero(
    params: Params, pos_weight: bool, settings: dict[str, Any]
) -> None:
    train = params.train.model_copy(update=settings)
    params = params.model_copy(update={"pos_weight": pos_weight, "train": train})
    photos, used = draw(200, 24), choose_subsets(200)
    photos.targets[::7, 1] = UNKNOWN
    probes, features = fit(photos, used, params)
    start = Probes(photos, used, probes.standardize, params).weights
    for number, own in enumerate(used):
        seen = take_photos(photos, np.flatnonzero(own))
        loss = training_loss(seen, params, torch.device("cpu"))
        targets = torch.from_numpy(seen.targets).float()
        targets[targets == UNKNOWN] = torch.nan

        def measure(weights: torch.Tensor) -> float:
            weights = weights.clone().requires_grad_()
            logits = torch.from_numpy(features[own]) @ weights[:, :-1].T + weights[:, -1]  # noqa: B023
            mean = loss(logits, targets).sum() / (~targets.isnan()).sum()  # noqa: B023
            penalty = STRENGTHS[-1] / 2 * weights[:, :-1].square().sum()
            (gradient,) = torch.autograd.grad(mean + penalty, weights)
            return float(gradient.norm())

        assert measure(probes.weights[number]) < 1e-3 * measure(start[number])


def test_label_with_one_target_gets_its_frequency(params: Params) -> None:
    photos = draw(30, 5)
    photos.targets[:, 1], photos.targets[:, 2] = 0, UNKNOWN
    used = np.arange(3)[:, None] > np.arange(30) % 3  # the first probe has no photos
    probes, _ = fit(photos, used, params)
    assert not probes.weights[:, 1:, :-1].any()
    expected = [[0.5 / n, 0.5] for n in (1, 11, 21)]
    assert probes.weights[:, 1:, -1].sigmoid().numpy() == pytest.approx(np.array(expected))
    assert not probes.weights[0, 0].any()
    assert probes.weights[1:, 0, :-1].any(dim=1).all()


def test_without_penalty_the_weights_stay_finite(params: Params) -> None:
    photos = draw(40, 60)  # every label can be predicted without errors
    probes, _ = fit(photos, choose_subsets(40), params)
    for _ in range(3):
        probes.fit(0.0)
    logits = probes.predict(np.zeros(40, int))
    assert np.isfinite(logits).all()
    assert ((logits > 0) == (photos.targets > 0)).all()
