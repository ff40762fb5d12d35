"""Schema of search.yaml, which defines studies with their search spaces and budgets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.base.params import (
    NonNegativeInt,
    ParamGroup,
    PositiveFloat,
    PositiveInt,
    read_values,
    validate_params,
)
from phototag.schema.params import validate_all
from phototag.tracking.recipes import FILE as RECIPES
from phototag.tracking.recipes import read_recipes, recipe_params

FILE = Path("search.yaml")
DIGITS = 4  # for readability, suggested floats are rounded to this many significant digits
Space = dict[str, dict[str, Any]]
Objective = Literal["val_loss", "mAP", "f1_macro"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
# Params that cannot be searched: they do not affect the model, or the study itself sets them.
# Trials share the packed photos and the cached features, which depend on `resize.size`.
NOT_SEARCHABLE = {
    *("seed", "precision", "resize.size"),
    *("train.compile", "train.devices", "train.num_nodes"),
}


class Study(ParamGroup):
    """Definition of a study in search.yaml.

    Attributes:
        description: Purpose of the study in one sentence.
        recipe: Recipe whose params all trials start from (default: start from params.yaml).
        settings: Values that are the same in all trials and replace those of the recipe. Mapping
            from dotted keys of params.yaml to values.
        space: Mapping from dotted keys of params.yaml to distributions (see `suggest_settings`).
        objective: Metric in the best epoch on val. `val_loss` is minimized, others are maximized.
        trials: No new trial starts after this many trials.
        hours: No new trial starts after the trials have taken this many hours in total (default:
            no limit).
        seeds: Seeds that each trial is trained with. The objective is the mean over these seeds.
        sampler: Optuna sampler: `tpe` (learns from earlier trials) or `random` (does not learn).
        pruner: Optuna pruner: `median` or `hyperband`, or `none` to disable pruning.
        seed: Random seed of the sampler.
    """

    description: str
    recipe: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    space: Annotated[Space, Field(min_length=1)]
    objective: Objective = "val_loss"
    trials: PositiveInt
    hours: PositiveFloat | None = None
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, strict=False)] = (0,)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "none"
    seed: NonNegativeInt = 0

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether Optuna minimizes or maximizes the objective."""
        return "minimize" if self.objective == "val_loss" else "maximize"


class Search(ParamGroup):
    """Contents of search.yaml."""

    # A study's name is restricted, because it is part of the names of DVC experiments.
    studies: Annotated[dict[Name, Study], Field(min_length=1)]


def read_search(path: Path = FILE) -> Search:
    """Read and validate search.yaml. Use `check_study` to check a study against params.yaml.

    Raises:
        InputError: The file is missing or is not valid YAML, a key is missing or unknown, or a
            value is out of range.
    """
    return validate_params(Search, read_values(path), str(path))


def read_study(root: Path, name: str) -> tuple[Study, dict[str, Any]]:
    """Read a study, and check it against params.yaml without importing PyTorch.

    Returns:
        The study, and the nested params that its trials start from.

    Raises:
        InputError: search.yaml, recipes.yaml or params.yaml is invalid.
    """
    studies = read_search(root / FILE).studies
    if name not in studies:
        raise InputError(f"{FILE} has no study {name!r}: choose one of {', '.join(studies)}")
    study = studies[name]
    base = read_values(root / "params.yaml")
    settings = flatten(study.settings)
    if study.recipe:
        all_recipes = read_recipes(root / RECIPES)
        settings = recipe_params(all_recipes, study.recipe) | settings
        base["recipe"] = study.recipe
    try:
        base = apply_overrides(base, settings)
    except KeyError as error:
        raise InputError(f"{FILE}: studies.{name}: {error} is not a key of params.yaml") from None
    check_study(name, study, base)
    return study, base


def describe_studies(search: Search) -> str:
    """Return a text with one line for each study: its name and its description."""
    width = max(map(len, search.studies))
    lines = [f"{name:<{width}}  {study.description}" for name, study in search.studies.items()]
    return "\n".join(lines)


def check_study(name: str, study: Study, base: Mapping[str, Any]) -> None:
    """Check the params that a study starts from, its searched keys and their distributions.

    This function does not check whether the suggested values are valid params. A trial whose values
    are invalid is skipped.

    Raises:
        InputError: The params are invalid, a key cannot be searched, or Optuna does not accept a
            distribution.
    """
    place = f"{FILE}: studies.{name}"
    start = validate_all(base, f"{place}, with its recipe and settings")
    if start.train.devices * start.train.num_nodes > 1:
        raise InputError(
            f"{place}: trials train in a single process: set train.devices and train.num_nodes to 1"
        )
    optimizers = study.space.get("optimizer", {}).get("choices", [])
    if "lbfgs" in optimizers and {*optimizers} != {"lbfgs"}:
        raise InputError(
            f"{place}.space.optimizer: lbfgs is scored on train and val, out of fold, but "
            "the other optimizers are scored on val: remove lbfgs from the choices"
        )
    searchable = flatten(start.train_settings()).keys() - NOT_SEARCHABLE
    for key, distribution in study.space.items():
        if key not in searchable:
            raise InputError(
                f"{place}.space.{key} cannot be searched: choose settings of the training"
            )
        try:
            for _ in range(10):  # repeated, because suggested lists have random lengths
                suggest_settings(optuna.create_study().ask(), {key: distribution})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{place}.space.{key}: {error}: see docs/search.md") from None


def suggest_settings(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Any]:
    """Suggest a value for each key of a search space.

    The keys of a distribution are the arguments of one of Optuna's `suggest_*` methods:

    - `{choices: [...]}`: `suggest_categorical`. The choices may also be lists or mappings.
    - `{low: 16, high: 64, step: 16}`: `suggest_int`, if all numbers are integers.
    - `{low: 0.001, high: 0.1, log: true}`: `suggest_float`, if a number is not an integer.
    - `{count: [1, 3], each: ...}`: list of 1 to 3 items. `each` is the distribution of an item. If
      items are mappings, `each` is a mapping from their fields to distributions.

    `space` and the result have dotted keys of params.yaml.
    """
    return {key: _suggest(trial, key, distribution) for key, distribution in space.items()}


def _suggest(trial: optuna.trial.BaseTrial, name: str, distribution: Mapping[str, Any]) -> Any:
    if all(isinstance(value, dict) for value in distribution.values()):
        fields = distribution.items()
        return {field: _suggest(trial, f"{name}.{field}", each) for field, each in fields}
    if "count" in distribution:
        count = trial.suggest_int(f"{name}.count", *distribution["count"])
        each = distribution["each"]
        return [_suggest(trial, f"{name}.{index}", each) for index in range(count)]
    if "choices" in distribution:
        # Optuna can store only scalars. Therefore, lists and mappings are stored as JSON.
        choices = {
            json.dumps(value) if isinstance(value, list | dict) else value: value
            for value in distribution["choices"]
        }
        return choices[trial.suggest_categorical(name, list(choices))]
    # PyYAML parses 1e-5 as a string, because there is no decimal point.
    numbers = {key: float(v) if isinstance(v, str) else v for key, v in distribution.items()}
    if all(isinstance(value, int) for value in numbers.values()):
        return trial.suggest_int(name, **numbers)
    return float(f"{trial.suggest_float(name, **numbers):.{DIGITS}g}")


def find_conflict(base: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return why a model cannot be trained with the settings, or "" if it can be trained."""
    try:
        validate_all(apply_overrides(base, settings), "params")
    except InputError as error:
        return str(error)
    return ""
