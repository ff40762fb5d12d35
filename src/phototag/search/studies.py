"""Schema of search.yaml: studies with their search spaces and budgets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field, model_validator

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
from phototag.network.params import feature_map_side
from phototag.schema.params import validate_all

FILE = Path("search.yaml")
DIGITS = 4  # significant digits of a suggested number, for readable params
Space = dict[str, dict[str, Any]]
Objective = Literal["val_loss", "mAP", "f1_macro"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
# These settings of the training do not change what is learned, or have another key in search.yaml.
NOT_SEARCHABLE = {"seed", "precision", "train.compile", "train.devices", "train.num_nodes"}


class Study(ParamGroup):
    """One study of search.yaml.

    Attributes:
        description: Purpose of the study, in one sentence.
        recipe: Recipe from which trials start (default: the values of params.yaml).
        settings: Dotted key of params.yaml -> value that all trials share; replaces the recipe's.
        space: Dotted key of params.yaml -> distribution of its values, see `suggest_settings`.
        objective: Val metric of the best epoch. `val_loss` is minimized, the others are maximized.
        trials: Number of trials after which none starts.
        hours: Total duration of all trials in hours after which none starts (default: unlimited).
        seeds: Seeds with which each trial trains; its value is the mean over these trainings.
        sampler: `tpe` learns from earlier trials, `random` does not.
        pruner: Optuna's median or Hyperband pruner, or `none`.
        seed: Seed of the sampler.
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
        """Optuna's direction of the objective."""
        return "minimize" if self.objective == "val_loss" else "maximize"

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and "says" in values:  # prose: ignore
            raise ValueError("says is now called description: rename it")  # prose: ignore
        return values


class Search(ParamGroup):
    """All of search.yaml."""

    # DVC experiments and MLflow runs have the study's name in theirs.
    studies: Annotated[dict[Name, Study], Field(min_length=1)]


def read_search(path: Path = FILE) -> Search:
    """Read and validate search.yaml; `check_study` compares a study with params.yaml.

    Raises:
        InputError: The file is missing or not valid YAML, or a key is unknown, missing, renamed or
            out of range.
    """
    return validate_params(Search, read_values(path), str(path))


def describe_studies(search: Search) -> str:
    """Return one line per study: its name and description."""
    width = max(map(len, search.studies))
    lines = [f"{name:<{width}}  {study.description}" for name, study in search.studies.items()]
    return "\n".join(lines)


def check_study(name: str, study: Study, base: Mapping[str, Any]) -> None:
    """Check a study's start values and the keys and distributions of its search space.

    A single value that params.yaml does not allow is found when a trial gets it: the trial is
    skipped.

    Args:
        name: Name of the study.
        study: The study.
        base: Nested values of params.yaml from which trials start.

    Raises:
        InputError: The start values are invalid, a key cannot be searched, or Optuna refuses a
            distribution.
    """
    place = f"{FILE}: studies.{name}"
    start = validate_all(base, f"{place}, with its recipe and settings")
    if start.train.devices * start.train.num_nodes > 1:
        raise InputError(
            f"{place}: a trial trains in one process: set train.devices and train.num_nodes to 1"
        )
    searchable = flatten(start.train_settings()).keys() - NOT_SEARCHABLE
    for key, distribution in study.space.items():
        if key not in searchable:
            raise InputError(f"{place}.space.{key} cannot be searched: it is no training setting")
        try:
            for _ in range(10):  # lists of several lengths
                suggest_settings(optuna.create_study().ask(), {key: distribution})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{place}.space.{key}: {error}: see docs/search.md") from None


def suggest_settings(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Any]:
    """Suggest a value of each key of a search space.

    A distribution has the arguments of a `suggest` method of Optuna's trials:

    - `{choices: [...]}`: `suggest_categorical`; the choices may be lists or mappings, too.
    - `{low: 16, high: 64, step: 16}`: `suggest_int`, if all numbers are integers.
    - `{low: 0.001, high: 0.1, log: true}`: `suggest_float`.
    - `{count: [1, 3], each: ...}`: a list of 1 to 3 items; `each` is the distribution of an item,
      or maps each field of an item to its distribution.

    Args:
        trial: Trial of Optuna; it records the suggestions.
        space: Dotted key of params.yaml -> distribution.

    Returns:
        Dotted key of params.yaml -> value.
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
        # Optuna stores scalars only, so a list or a mapping is stored as JSON.
        choices = {
            json.dumps(value) if isinstance(value, list | dict) else value: value
            for value in distribution["choices"]
        }
        return choices[trial.suggest_categorical(name, list(choices))]
    # PyYAML reads 1e-5 as a string.
    numbers = {key: float(v) if isinstance(v, str) else v for key, v in distribution.items()}
    if all(isinstance(value, int) for value in numbers.values()):
        return trial.suggest_int(name, **numbers)
    return float(f"{trial.suggest_float(name, **numbers):.{DIGITS}g}")


def find_conflict(base: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the reason why a trial cannot be trained; empty if it can."""
    try:
        params = validate_all(apply_overrides(base, settings), "params")
        if not params.model.backbones:
            feature_map_side(params.model, params.resize.size)
    except InputError as error:
        return str(error)
    return ""
