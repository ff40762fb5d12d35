"""Spaces, with Optuna itself as the one who proposes."""

from typing import Any

import optuna
import pytest

from phototag.base.keys import apply_overrides
from phototag.schema.params import Params
from phototag.search.feasibility import why_infeasible
from phototag.search.space import propose
from tests.search.files import make_study

CONV = {
    "count": [1, 6],
    "each": {
        "out": {"choices": [20, 40]},
        "kernel": {"choices": [1, 3, 5, 7]},
        "stride": {"choices": [1, 2]},
        "pool": {"choices": [1, 2]},
    },
}
SPACE = {
    "optimizer": {"choices": ["adam", "sgd"]},
    "lr": [
        {"low": 0.01, "high": 0.1, "when": {"optimizer": ["sgd"]}},
        {"low": 0.0001, "high": 0.001, "log": True},
    ],
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3, "when": {"optimizer": ["sgd"]}},
    "weight_decay": {"choices": [0, 0.1]},
    "batch_size": {"low": 16, "high": 64, "step": 16},
    "model.conv": CONV,
    "model.linear": {"count": [0, 2], "each": {"choices": [256, 512]}},
    "model.weights": {"choices": [None, "mine.pth"]},
}


def draw(space: dict[str, Any], base: dict[str, Any], number: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [propose(study.ask(), make_study(space=space), base) for _ in range(number)]


def test_every_proposal_is_within_the_space(params_values: dict[str, Any]) -> None:
    drawn = draw(SPACE, params_values, 200)
    for settings in drawn:
        sgd = settings["optimizer"] == "sgd"
        low, high = (0.01, 0.1) if sgd else (0.0001, 0.001)
        assert low <= settings["lr"] <= high
        assert float(f"{settings['lr']:.4g}") == settings["lr"]
        assert ("momentum" in settings) == sgd
        assert settings["batch_size"] in (16, 32, 48, 64)
        assert 1 <= len(settings["model.conv"]) <= 6
        assert all(set(block) == set(CONV["each"]) for block in settings["model.conv"])
        assert all(width in (256, 512) for width in settings["model.linear"])
        Params.model_validate(apply_overrides(params_values, settings))
    assert {round(s["momentum"], 6) for s in drawn if "momentum" in s} == {0, 0.3, 0.6, 0.9}
    assert {len(settings["model.conv"]) for settings in drawn} == {1, 2, 3, 4, 5, 6}
    assert {len(settings["model.linear"]) for settings in drawn} == {0, 1, 2}
    assert {settings["model.weights"] for settings in drawn} == {None, "mine.pth"}
    # 0 and 0.0 are one weight decay, and one trial.
    assert {str(settings["weight_decay"]) for settings in drawn} == {"0.0", "0.1"}


def test_choices_may_be_whole_networks(params_values: dict[str, Any]) -> None:
    nets = [[{"out": 8, "kernel": 3}], [{"out": 4, "kernel": 5, "pool": 2}]]
    drawn = draw({"model.conv": {"choices": nets}}, params_values, 20)
    assert all(settings["model.conv"] in nets for settings in drawn)
    assert len({str(settings) for settings in drawn}) == 2


def test_networks_that_cannot_be_are_told(params_values: dict[str, Any]) -> None:
    block = {"out": 20, "kernel": 7, "pool": 2, "stride": 2}
    reason = why_infeasible(params_values, {"model.conv": [block] * 4})
    assert "model.conv.2" in reason
    assert "leaves nothing" in reason
    assert not why_infeasible(params_values, {})
    assert "set model.freeze to true" in why_infeasible(params_values, {"optimizer": "lbfgs"})


@pytest.mark.parametrize(("batch_size", "fits"), [(64, True), (10_000_000, False)])
def test_networks_that_need_more_memory_than_there_is_are_told(
    params_values: dict[str, Any], batch_size: int, fits: bool
) -> None:
    reason = why_infeasible(params_values, {"batch_size": batch_size})
    assert (reason == "") == fits
    assert fits or "GiB of memory, and there are" in reason


def test_networks_that_cost_too_much_are_told(params_values: dict[str, Any]) -> None:
    one = {"model.conv": [{"out": 8, "kernel": 3, "pool": 4}], "model.linear": []}
    base = apply_overrides(params_values, one)
    twice = {"model.conv": [{"out": 16, "kernel": 3, "pool": 4}]}  # each layer's operations double
    assert not why_infeasible(base, twice, 2)
    reason = why_infeasible(base, twice, 1.99)
    assert "a photo takes 2.0 times the operations" in reason
    assert "the study allows 1.99 (compute)" in reason
    assert not why_infeasible(base, {"batch_size": 128}, 1)  # counted for one photo
    # Where batch norm gets a single value a channel, training could not take its variance.
    single = [{"out": 8, "kernel": 32, "residual": 1}]
    small = {"model.batch_norm": True, "batch_size": 1, "resize.size": 32}
    assert not why_infeasible(base, small | {"model.conv": single}, 2)
