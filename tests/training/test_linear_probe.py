"""The linear probe, compared with scikit-learn's logistic regression."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn

from phototag.base.keys import apply_overrides
from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.folds import FOLDS, assign_folds
from phototag.metrics.losses import binary_cross_entropy
from phototag.network.features import standardize_features
from phototag.network.model import Standardize
from phototag.schema.params import Params
from phototag.training import linear_probe
from phototag.training.linear_probe import (
    LinearProbe,
    cross_validate,
    fit_linear_probe,
    hold_out,
    predict_nested,
)
from phototag.training.probes import Probes
from phototag.training.records import Record
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


def test_best_l2_strength_is_selected_on_val(params: Params) -> None:
    model = build()
    packed = np.concatenate([TRAIN.images, VAL.images])  # all splits share one array
    rows = len(TRAIN) + VAL.rows
    splits = replace(TRAIN, images=packed), replace(VAL, images=packed, rows=rows)
    probe = hold_out(model, *splits)
    steps = list(fit_linear_probe(probe, params))
    best = steps[-1]["best_step"]
    assert 1 < best < params.epochs, "the best strength is the strongest or the weakest"
    features = model[0](torch.from_numpy(TRAIN.images)).numpy()
    held_out = model[0](torch.from_numpy(VAL.images)).numpy()
    assert [step["l2"] for step in steps] == pytest.approx(
        [10 ** (-(step["step"] - 1) / 4) for step in steps]
    )
    found = np.stack([fit_oracle(features, TRAIN.targets, step["l2"], held_out) for step in steps])
    losses = [
        binary_cross_entropy(VAL.targets, take(found, choose_oracle(VAL.targets, found[:count])))
        for count in range(1, len(steps) + 1)
    ]
    assert [step["val_loss"] for step in steps] == pytest.approx(losses, abs=1e-4)
    assert best == int(np.argmin(losses)) + 1
    chosen = choose_oracle(VAL.targets, found[:best])
    assert len(set(chosen)) > 1, "all labels have the same strength"
    assert probe.choice.steps.tolist() == [step + 1 for step in chosen]
    with torch.inference_mode():
        logits = model(torch.from_numpy(TRAIN.images)).numpy()
    fits = [fit_oracle(features, TRAIN.targets, step["l2"], features) for step in steps]
    np.testing.assert_allclose(logits, take(np.stack(fits), chosen), atol=0.02)
    loss = binary_cross_entropy(TRAIN.targets, logits)
    assert steps[best - 1]["train_loss"] == pytest.approx(loss, rel=1e-5)


def fit_oracle(
    features: np.ndarray, targets: np.ndarray, l2: float, others: np.ndarray
) -> np.ndarray:
    """Return the logits of `others`, computed by scikit-learn."""
    logits = [
        LogisticRegression(C=1 / (targets.size * l2), tol=1e-8, max_iter=3000)
        .fit(features, column)
        .decision_function(others)
        for column in targets.T
    ]
    return np.stack(logits, axis=1)


def choose_oracle(targets: np.ndarray, logits: np.ndarray) -> list[int]:
    """Return the best step of each label, with 10 more positives that have the mean loss."""
    losses = np.array(
        [
            [
                log_loss(*pair, labels=[0, 1], normalize=False)
                for pair in zip(targets.T, step.T, strict=True)
            ]
            for step in expit(logits)
        ]
    )
    more = losses.sum(axis=1, keepdims=True) * 10 / targets.sum()
    return list((losses + more).argmin(axis=0))


def take(logits: np.ndarray, steps: list[int]) -> np.ndarray:
    """Return the logits of each label in its step."""
    return np.stack([logits[step][:, label] for label, step in enumerate(steps)], axis=1)


def test_cross_validation_matches_scikit_learn(params: Params) -> None:
    """Each group has two photos; scikit-learn fits each fold, and the folds of its other folds."""
    photos = replace(TRAIN, groups=[str(index // 2) for index in range(len(TRAIN))])
    model, folds = build(), assign_folds(photos, params.seed)
    probe = cross_validate(model, photos, params.seed)
    steps = list(fit_linear_probe(probe, params))
    features, targets = model[0](torch.from_numpy(TRAIN.images)).numpy(), TRAIN.targets

    def predict(seen: np.ndarray, others: np.ndarray, step: Record) -> np.ndarray:
        return fit_oracle(features[seen], targets[seen], step["l2"], features[others])

    found = np.zeros((len(steps), *targets.shape))
    for step, logits in zip(steps, found, strict=True):
        for fold in range(1, FOLDS + 1):
            logits[folds == fold] = predict(folds != fold, folds == fold, step)
        chosen = choose_oracle(targets, found[: step["step"]])
        loss = binary_cross_entropy(targets, take(found, chosen))
        assert step["val_loss"] == pytest.approx(loss, abs=1e-4)
        if step["step"] == steps[-1]["best_step"]:
            np.testing.assert_allclose(probe.logits.numpy(), take(found, chosen), atol=0.02)
            with torch.inference_mode():
                whole = model(torch.from_numpy(TRAIN.images)).numpy()
            everything = np.ones(len(TRAIN), bool)
            fits = [predict(everything, everything, each) for each in steps]
            np.testing.assert_allclose(whole, take(np.stack(fits), chosen), atol=0.02)

    nested = predict_nested(probe, params)
    for fold in range(1, FOLDS + 1):
        rest = folds != fold
        for step, logits in zip(steps, found, strict=True):
            for inner in range(1, FOLDS + 1):
                logits[folds == inner] = predict(rest & (folds != inner), folds == inner, step)
        chosen = choose_oracle(targets[rest], found[:, rest])
        np.testing.assert_allclose(nested[fold - 1], take(found, chosen), atol=0.02)


def test_nested_cross_validation_does_not_see_the_predicted_fold(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params.model_copy(update={"epochs": 8})
    folds = assign_folds(TRAIN, params.seed)
    # Other targets would change the folds, which are stratified.
    monkeypatch.setattr(linear_probe, "assign_folds", lambda *given: folds)
    targets = TRAIN.targets.copy()
    targets[folds == 2] = 1 - targets[folds == 2]
    before, after = (
        predict_nested(cross_validate(build(), photos, params.seed), params)
        for photos in (TRAIN, replace(TRAIN, targets=targets))
    )
    np.testing.assert_array_equal(before[1], after[1])
    assert np.abs(before[0] - after[0])[folds == 1].max() > 0.5


@pytest.mark.parametrize(
    ("key", "value"), [("train.early_stopping", 2), ("pos_weight", True), ("epochs", 3)]
)
def test_nested_cross_validation_chooses_like_a_probe_on_the_other_folds(
    params: Params, key: str, value: Any
) -> None:
    params = Params.model_validate(apply_overrides(params.model_dump(mode="json"), {key: value}))
    folds = assign_folds(TRAIN, params.seed)
    nested = predict_nested(cross_validate(build(), TRAIN, params.seed), params)
    for fold in (1, 4):
        rest = np.flatnonzero(folds != fold)
        used = folds[rest] != np.arange(FOLDS + 1)[:, None]
        probe = LinearProbe(build(), take_photos(TRAIN, rest), used, folds[rest])
        records = list(fit_linear_probe(probe, params))
        steps = probe.choice.steps
        assert len(set(steps.tolist())) > (1 if key != "epochs" else 0)
        if key == "train.early_stopping":
            assert len(records) == steps.max() + 2
        np.testing.assert_allclose(nested[fold - 1, rest], probe.logits, atol=0.02)
        with torch.inference_mode():
            logits = probe.head(torch.from_numpy(TRAIN.images))
        own = folds == fold
        np.testing.assert_allclose(nested[fold - 1, own], logits[own], atol=0.02)


def test_label_is_not_fitted_after_early_stopping(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[list[int]] = []

    class Noted(Probes):
        def fit(self, l2: float, labels: np.ndarray | None = None) -> None:
            assert labels is not None
            fitted.append(labels.tolist())
            super().fit(l2, labels)

    monkeypatch.setattr(linear_probe, "Probes", Noted)
    values = apply_overrides(params.model_dump(mode="json"), {"train.early_stopping": 2})
    probe = cross_validate(build(), TRAIN, params.seed)
    list(fit_linear_probe(probe, Params.model_validate(values)))
    counts = [sum(label in labels for labels in fitted) for label in range(LABELS)]
    assert counts == (probe.choice.steps + 2).tolist()
    assert len(set(counts)) > 1


@pytest.mark.parametrize("killed_after", [1, 3])
def test_linear_probe_resumes_to_the_same_bytes(
    params: Params, tmp_path: Path, killed_after: int
) -> None:
    early = params.train.model_copy(update={"early_stopping": 2})
    params = params.model_copy(update={"weight_decay": 0.1, "epochs": 7, "train": early})

    def fit(checkpoint: Path | None, count: int | None) -> tuple[list[Record], LinearProbe]:
        probe = cross_validate(build(), TRAIN, params.seed)
        return list(islice(fit_linear_probe(probe, params, checkpoint), count)), probe

    records, whole = fit(None, None)
    fit(tmp_path / "state.pt", killed_after)
    again, resumed = fit(tmp_path / "state.pt", None)
    assert records == again
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_out_of_fold_logits_of_two_photos_are_finite(params: Params) -> None:
    few = take_photos(TRAIN, np.arange(2))
    few.targets[:] = [[1, 0, 0], [1, 0, 1]]
    probe = cross_validate(build(), few, params.seed)
    list(fit_linear_probe(probe, params))
    assert np.isfinite(probe.logits).all()
    nested = predict_nested(probe, params)
    assert np.isfinite(nested).all()
    assert nested.shape == (FOLDS, 2, LABELS)


def fit_probe(params: Params, photos: Dataset) -> list[float]:
    probe = cross_validate(build(), photos, params.seed)
    losses = [step["val_loss"] for step in fit_linear_probe(probe, params)]
    nested = predict_nested(probe, params)
    return [*losses, *probe.logits.ravel()[:30].tolist(), *nested.ravel()[:30].tolist()]


@pytest.mark.parametrize("count", [150, 2])
def test_two_processes_fit_the_same_probe(params: Params, tmp_path: Path, count: int) -> None:
    few = take_photos(TRAIN, np.arange(count))
    early = params.train.model_copy(update={"early_stopping": 1})
    params = params.model_copy(update={"weight_decay": 0.1, "epochs": 8, "train": early})
    alone = fit_probe(params, few)
    for together in run_together(tmp_path, fit_probe, params, few):
        assert together == pytest.approx(alone, abs=1e-3)


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
