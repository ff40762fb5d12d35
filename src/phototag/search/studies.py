"""Schema of search.yaml: studies with their search spaces and budgets."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna import create_study
from pydantic import Field, model_validator

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.base.params import (
    NonNegativeInt,
    ParamGroup,
    PositiveFloat,
    PositiveInt,
    read_values,
    validate_params,
)
from phototag.schema.params import validate_all
from phototag.search.space import Space, suggest_settings

FILE = Path("search.yaml")
Objective = Literal["val_loss", "mAP", "f1_macro"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
# The photo size is no setting of the training, but trials may differ in it.
ALSO_SEARCHABLE = {"resize.size"}
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


def find_study(search: Search, name: str) -> Study:
    """Return a study by its name.

    Raises:
        InputError: search.yaml has no study of this name.
    """
    if name not in search.studies:
        raise InputError(f"{FILE} has no study {name!r}: choose {', '.join(search.studies)}")
    return search.studies[name]


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
        InputError: The start values are invalid, a key is unknown or cannot be searched, or Optuna
            refuses a distribution.
    """
    place = f"{FILE}: studies.{name}"
    start = validate_all(base, f"{place}, with its recipe and settings")
    if start.train.devices * start.train.num_nodes > 1:
        raise InputError(
            f"{place}: a trial trains in one process: set train.devices and train.num_nodes to 1"
        )
    known = flatten(base)
    searchable = flatten(start.train_settings()).keys() - NOT_SEARCHABLE | ALSO_SEARCHABLE
    for key, distribution in study.space.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f": did you mean {close[0]}?" if close else ""
            raise InputError(f"{place}.space.{key} is no key of params.yaml{hint}")
        if key not in searchable:
            raise InputError(f"{place}.space.{key} cannot be searched: it is no training setting")
        try:
            for _ in range(10):  # lists of several lengths
                suggest_settings(create_study().ask(), {key: distribution})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{place}.space.{key}: {error}: see docs/search.md") from None
