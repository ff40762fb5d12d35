"""Search space: values of params.yaml that Optuna suggests for a trial."""

import json
from collections.abc import Mapping
from typing import Any

import optuna

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.network.params import feature_map_side
from phototag.schema.params import validate_all

DIGITS = 4  # significant digits of a suggested number, for readable params
Space = dict[str, dict[str, Any]]


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
    """Return the reason why a trial cannot be trained; empty if it can.

    Args:
        base: Nested values of params.yaml from which trials start.
        settings: Dotted key -> value of the trial.
    """
    try:
        params = validate_all(apply_overrides(base, settings), "params")
        if params.model.name == "conv":
            feature_map_side(params.model, params.resize.size)
    except InputError as error:
        return str(error)
    return ""
