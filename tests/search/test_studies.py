from pathlib import Path
from typing import Any

import pytest
import yaml

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.experiments.recipes import FILE as RECIPES
from phototag.experiments.recipes import read_recipes, recipe_params
from phototag.search.studies import (
    FILE,
    check_study,
    describe_studies,
    find_study,
    read_search,
)
from tests.conftest import SHIPPED_PARAMS
from tests.search.files import make_study, read_small, write_search

REPOSITORY = SHIPPED_PARAMS.parent


def knob(**given: Any) -> dict[str, Any]:
    return {"space": {"lr": given}}


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"trails": 5}, "studies.small.trails is unknown (misspelt, or in the wrong place?)"),
    ({"says": None}, "studies.small.says is missing"),
    ({"space": {}}, "studies.small.space: dictionary should have at least 1 item"),
    ({"trials": 0}, "studies.small.trials: input should be greater than 0, not 0"),
    ({"hours": "two"}, "studies.small.hours: input should be a valid number, not 'two'"),
    ({"seeds": []}, "studies.small.seeds: tuple should have at least 1 item"),
    ({"seeds": [1, 1]}, "studies.small: seeds names one twice"),
    ({"objective": "test_loss"}, "input should be 'val_loss', 'mAP' or 'f1_macro', not 'test_l"),
    ({"pruner": "asha"}, "studies.small.pruner: input should be 'none', 'median' or 'hyperband'"),
    (knob(low=0.1, high=0.01), "studies.small.space.lr: low (0.1) must be below high (0.01)"),
    (knob(low=0.1), "studies.small.space.lr: low and high go together"),
    (knob(low=0.0, high=0.1, log=True), "log needs a low above 0, not 0.0"),
    (knob(low=0.1, high=0.2, step=0.5), "step (0.5) must be above 0 and fit between low and high"),
    (knob(low=0.1, high=0.2, step=0.1, log=True), "log and step do not go together"),
    (knob(choices=[0.1]), "studies.small.space.lr: choices must be two values or more, each once"),
    (knob(choices=[0.1, 0.2, 0.1]), "choices must be two values or more, each once"),
    (knob(choices=[0.1, 0.2], low=0.1, high=1.0), "give low and high, or choices, or count and"),
    (knob(lowest=0.1, high=1.0), "studies.small.space.lr.lowest is unknown"),
    (knob(count=[3, 1], each={"low": 1, "high": 2}), "count goes from 3 down to 1"),
    (knob(count=[1, 3]), "studies.small.space.lr: count and each go together"),
    (
        knob(low=0.1, high=1.0, when={"optimizer": ["adam"]}),
        "space.lr: when names 'optimizer', which is no knob of choices above",
    ),
    (
        {
            "space": {
                "optimizer": {"choices": ["adam", "sgd"]},
                "lr": {"low": 0.1, "high": 1.0, "when": {"optimizer": ["adamw"]}},
            }
        },
        "space.lr: when waits for optimizer 'adamw', which is none of its choices",
    ),
    ({"compute": 0}, "compute: input should be greater than 0, not 0"),
]


@pytest.mark.parametrize(("changes", "told"), BROKEN, ids=[told[-40:] for _, told in BROKEN])
def test_what_is_wrong_in_itself_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = write_search(tmp_path / "search.yaml", **changes)
    with pytest.raises(InputError) as raised:
        read_search(path)
    assert told in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is missing: run from the repository's root"),
        ("studies: [\n", "is not valid YAML"),
        ("studies: {}\n", "studies: dictionary should have at least 1 item"),
        ("studies: {my head: {}}\n", "studies.my head.[key]: string should match pattern"),
        ("- head\n", "the file: input should be a valid dictionary"),
        ("", "the file: input should be a valid dictionary or instance of Search, not None"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "search.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_search(path)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


KERNEL = {"choices": [1, 3]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": {"low": 0.1, "high": 1.0}}, "learning_rate is no key of params.yaml"),
    ({"weightdecay": {"low": 0.1, "high": 1.0}}, "did you mean weight_decay?"),
    ({"model": {"choices": [1, 2]}}, "space.model is no key of params.yaml"),
    ({"seed": {"low": 0, "high": 9}}, "`seeds` says with which seeds trials train"),
    ({"data.raw": {"choices": ["a", "b"]}}, "none of the settings that decide what is learnt"),
    (
        {"evaluate.prior_strength": {"low": 1.0, "high": 9.0}},
        "space.evaluate.prior_strength cannot be searched",
    ),
    ({"lr": {"low": 0.0, "high": 0.1}}, "lr: input should be greater than 0, not 0.0"),
    ({"momentum": {"low": 0.5, "high": 1.0}}, "momentum: input should be less than 1, not 1.0"),
    ({"batch_size": {"low": 0.5, "high": 64.0}}, "batch_size: input should be a valid integer"),
    ({"optimizer": {"choices": ["adam", "rmsprop"]}}, "optimizer: input should be 'adam'"),
    (
        {"model.conv": {"count": [1, 2], "each": {"out": {"low": 0, "high": 9}, "kernel": KERNEL}}},
        "model.conv: out: input should be greater than 0, not 0",
    ),
    (
        {"model.conv": {"count": [1, 2], "each": {"kernel": KERNEL}}},
        "model.conv: out: field required",
    ),
    (
        {"model.conv": {"count": [0, 2], "each": {"out": {"low": 1, "high": 9}, "kernel": KERNEL}}},
        "model.conv: tuple should have at least 1 item",
    ),
    ({"model.linear": {"count": [0, 2], "each": {"low": -4, "high": 9}}}, "greater than 0, not -4"),
]


@pytest.mark.parametrize(("space", "told"), REFUSED, ids=[told[-40:] for _, told in REFUSED])
def test_what_params_yaml_would_refuse_is_one_sentence(
    tmp_path: Path, space: dict[str, Any], told: str, params_values: dict[str, Any]
) -> None:
    study = read_small(write_search(tmp_path / "search.yaml", space=space))
    with pytest.raises(InputError) as raised:
        check_study("small", study, params_values)
    assert told in str(raised.value)
    assert str(raised.value).startswith("search.yaml: studies.small.space.")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 0}, "over params.yaml, epochs: input should be greater than 0, not 0"),
        ({"train": 3}, "over params.yaml, train: input should be a valid dictionary"),
        ({"optimizer": "lbfgs"}, "over params.yaml, the file: optimizer lbfgs solves a head"),
    ],
)
def test_a_start_that_params_yaml_would_refuse_is_one_sentence(
    settings: dict[str, Any], told: str, params_values: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as raised:
        check_study("small", make_study(), apply_overrides(params_values, settings))
    assert str(raised.value).startswith("search.yaml: studies.small: with its recipe and settings")
    assert told in str(raised.value)


def test_processes_networks_and_names_are_told(
    params_values: dict[str, Any], tmp_path: Path
) -> None:
    params_values["train"]["devices"] = 2
    with pytest.raises(InputError, match=r"set train.devices and train.num_nodes to 1"):
        check_study("small", make_study(), params_values)
    params_values["train"]["devices"] = 1
    params_values["model"]["name"] = "resnet18"
    with pytest.raises(InputError, match=r"small.compute is for networks of model.conv"):
        check_study("small", make_study(compute=2.0), params_values)
    params_values["model"]["name"] = "conv"
    names = {"model.name": {"choices": ["conv", "resnet18"]}}
    with pytest.raises(InputError, match=r"small.compute is for networks of model.conv"):
        check_study("small", make_study(compute=2.0, space=names), params_values)
    search = read_search(write_search(tmp_path / "search.yaml"))
    with pytest.raises(InputError, match="no study 'large'; it has small"):
        find_study(search, "large")
    assert describe_studies(search) == "small  A small one."


@pytest.mark.parametrize("name", read_search(REPOSITORY / FILE).studies)
def test_shipped_studies_fit_params_yaml(name: str, params_values: dict[str, Any]) -> None:
    study = read_search(REPOSITORY / FILE).studies[name]
    recipes = read_recipes(REPOSITORY / RECIPES)
    assert study.recipe
    settings = recipe_params(recipes, study.recipe) | study.settings
    check_study(name, study, apply_overrides(params_values, settings))
    assert yaml.safe_load((REPOSITORY / FILE).read_text())["studies"][name]["says"] == study.says
