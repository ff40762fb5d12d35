from pathlib import Path
from typing import Any

import optuna
import pytest

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.schema.params import Params
from phototag.search.studies import (
    FILE,
    check_study,
    describe_studies,
    find_conflict,
    read_search,
    suggest_settings,
)
from phototag.tracking.recipes import FILE as RECIPES
from phototag.tracking.recipes import read_recipes, recipe_params
from tests.conftest import SHIPPED_PARAMS
from tests.search.files import make_study, write_search

REPOSITORY = SHIPPED_PARAMS.parent

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"trails": 5}, "studies.small.trails is unknown"),
    ({"description": None}, "studies.small.description is missing"),
    ({"trials": 0}, "studies.small.trials: input should be greater than 0, not 0"),
    ({"seeds": []}, "studies.small.seeds: tuple should have at least 1 item"),
    ({"objective": "test_loss"}, "input should be 'val_loss', 'mAP' or 'f1_macro', not 'test_l"),
]


@pytest.mark.parametrize(("changes", "expected"), INVALID)
def test_an_invalid_study_is_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    path = write_search(tmp_path / "search.yaml", **changes)
    with pytest.raises(InputError) as raised:
        read_search(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_studies_are_described(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path / "search.yaml"))
    assert describe_studies(search) == "small  A small study."


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": {"low": 0.1, "high": 1.0}}, "learning_rate cannot be searched"),
    ({"seed": {"low": 0, "high": 9}}, "seed cannot be searched: choose settings of the training"),
    ({"resize.size": {"low": 64, "high": 128}}, "resize.size cannot be searched"),
    ({"optimizer": {"choices": ["lbfgs", "adamw"]}}, "remove lbfgs from the choices"),
    ({"lr": {"low": 0.1, "high": 0.01}}, "low <= high"),
    ({"lr": {"low": 0.1}}, "'high'"),
    ({"model.linear": {"count": [0, 2]}}, "'each'"),
]


@pytest.mark.parametrize(("space", "expected"), REFUSED)
def test_a_search_space_that_does_not_fit_params_yaml_is_refused(
    space: dict[str, Any], expected: str, params_values: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as raised:
        check_study("small", make_study(space=space), params_values)
    assert str(raised.value).startswith("search.yaml: studies.small.space.")
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"epochs": 0},
            "with its recipe and settings: epochs: input should be greater than 0, not 0",
        ),
        ({"train.devices": 2}, "set train.devices and train.num_nodes to 1"),
    ],
)
def test_start_values_that_cannot_be_trained_are_refused(
    settings: dict[str, Any], expected: str, params_values: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as raised:
        check_study("small", make_study(), apply_overrides(params_values, settings))
    assert expected in str(raised.value)


@pytest.mark.parametrize("name", read_search(REPOSITORY / FILE).studies)
def test_shipped_studies_fit_params_yaml(name: str, params_values: dict[str, Any]) -> None:
    study = read_search(REPOSITORY / FILE).studies[name]
    assert study.recipe
    settings = recipe_params(read_recipes(REPOSITORY / RECIPES), study.recipe)
    check_study(name, study, apply_overrides(params_values, settings | flatten(study.settings)))


CONV = {
    "count": [1, 6],
    "each": {"out": {"choices": [20, 40]}, "kernel": {"choices": [1, 3, 5, 7]}},
}
NETS = [[{"out": 8, "kernel": 3}], [{"out": 4, "kernel": 5, "pool": 2}]]
SPACE: dict[str, dict[str, Any]] = {
    "optimizer": {"choices": ["adam", "sgd"]},
    "lr": {"low": "1e-4", "high": 0.1, "log": True},
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "batch_size": {"low": 16, "high": 64, "step": 16},
    "model.conv": CONV,
    "model.linear": {"count": [0, 2], "each": {"choices": [256, 512]}},
    "model.weights": {"choices": [None, "mine.pth"]},
}


def test_suggestions_are_within_the_space(params_values: dict[str, Any]) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest_settings(study.ask(), SPACE) for _ in range(200)]
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
    nets = [suggest_settings(study.ask(), {"model.conv": {"choices": NETS}}) for _ in range(20)]
    assert all({"model.conv": net} in nets for net in NETS)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"model.conv": [{"out": 20, "kernel": 7, "pool": 2, "stride": 2}] * 4}, "model.conv.2"),
        ({"lr": -1.0}, "params: lr: input should be greater than 0, not -1.0"),
    ],
)
def test_settings_that_cannot_be_trained_have_a_conflict(
    settings: dict[str, Any], expected: str, params_values: dict[str, Any]
) -> None:
    conflict = find_conflict(params_values, settings)
    assert expected in conflict
    assert bool(conflict) == bool(expected)
