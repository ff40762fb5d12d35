from pathlib import Path
from typing import Any

import pytest

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.experiments.recipes import FILE as RECIPES
from phototag.experiments.recipes import read_recipes, recipe_params
from phototag.search.studies import FILE, check_study, describe_studies, find_study, read_search
from tests.conftest import SHIPPED_PARAMS
from tests.search.files import make_study, write_search

REPOSITORY = SHIPPED_PARAMS.parent

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"trails": 5}, "studies.small.trails is unknown"),
    ({"says": "Words."}, "says is now called description: rename it"),
    ({"description": None}, "studies.small.description is missing"),
    ({"space": {}}, "studies.small.space: dictionary should have at least 1 item"),
    ({"trials": 0}, "studies.small.trials: input should be greater than 0, not 0"),
    ({"hours": "two"}, "studies.small.hours: input should be a valid number, not 'two'"),
    ({"seeds": []}, "studies.small.seeds: tuple should have at least 1 item"),
    ({"objective": "test_loss"}, "input should be 'val_loss', 'mAP' or 'f1_macro', not 'test_l"),
    ({"pruner": "asha"}, "studies.small.pruner: input should be 'none', 'median' or 'hyperband'"),
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


def test_a_missing_study_is_refused_with_the_names(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path / "search.yaml"))
    with pytest.raises(InputError, match="no study 'large': choose small"):
        find_study(search, "large")
    assert describe_studies(search) == "small  A small study."


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": {"low": 0.1, "high": 1.0}}, "learning_rate is no key of params.yaml"),
    ({"weightdecay": {"low": 0.1, "high": 1.0}}, "did you mean weight_decay?"),
    ({"seed": {"low": 0, "high": 9}}, "seed cannot be searched: it is no training setting"),
    ({"evaluate.prior_strength": {"low": 1.0, "high": 9.0}}, "prior_strength cannot be searched"),
    ({"lr": {"low": 0.1, "high": 0.01}}, "low <= high"),
    ({"lr": {"low": 0.1}}, "'high'"),
    ({"lr": {"low": 0.0, "high": 0.1, "log": True}}, "low > 0"),
    ({"lr": {"lowest": 0.1, "high": 1.0}}, "'lowest'"),
    ({"lr": {"choices": []}}, "choices"),
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
        ({"epochs": 0}, "epochs: input should be greater than 0, not 0"),
        ({"optimizer": "lbfgs"}, "with its recipe and settings: "),
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
