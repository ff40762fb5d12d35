from typing import Any

import optuna
import pytest

from phototag.base.keys import apply_overrides
from phototag.schema.params import Params
from phototag.search.space import find_conflict, suggest_settings

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
    "lr": {"low": "1e-4", "high": 0.1, "log": True},
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "batch_size": {"low": 16, "high": 64, "step": 16},
    "model.conv": CONV,
    "model.linear": {"count": [0, 2], "each": {"choices": [256, 512]}},
    "model.weights": {"choices": [None, "mine.pth"]},
}


def draw(space: dict[str, Any], number: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [suggest_settings(study.ask(), space) for _ in range(number)]


def test_suggestions_are_within_the_space(params_values: dict[str, Any]) -> None:
    drawn = draw(SPACE, 200)
    for settings in drawn:
        assert 0.0001 <= settings["lr"] <= 0.1
        assert float(f"{settings['lr']:.4g}") == settings["lr"]
        assert settings["batch_size"] in (16, 32, 48, 64)
        assert all(set(block) == set(CONV["each"]) for block in settings["model.conv"])
        assert all(width in (256, 512) for width in settings["model.linear"])
        Params.model_validate(apply_overrides(params_values, settings))
    assert {round(settings["momentum"], 6) for settings in drawn} == {0, 0.3, 0.6, 0.9}
    assert {len(settings["model.conv"]) for settings in drawn} == {1, 2, 3, 4, 5, 6}
    assert {len(settings["model.linear"]) for settings in drawn} == {0, 1, 2}
    assert {settings["model.weights"] for settings in drawn} == {None, "mine.pth"}


def test_choices_may_be_whole_networks() -> None:
    nets = [[{"out": 8, "kernel": 3}], [{"out": 4, "kernel": 5, "pool": 2}]]
    drawn = draw({"model.conv": {"choices": nets}}, 20)
    assert all(settings["model.conv"] in nets for settings in drawn)
    assert len({str(settings) for settings in drawn}) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"model.conv": [{"out": 20, "kernel": 7, "pool": 2, "stride": 2}] * 4}, "model.conv.2"),
        ({"optimizer": "lbfgs"}, "model.freeze"),
        ({"lr": -1.0}, "params: lr: input should be greater than 0, not -1.0"),
    ],
)
def test_settings_that_cannot_be_trained_have_a_conflict(
    settings: dict[str, Any], expected: str, params_values: dict[str, Any]
) -> None:
    conflict = find_conflict(params_values, settings)
    assert expected in conflict
    assert bool(conflict) == bool(expected)
