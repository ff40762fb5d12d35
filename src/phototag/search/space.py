"""The space of a study: settings from what Optuna proposes."""

import json
from typing import Any, Protocol

from phototag.base.keys import apply_overrides
from phototag.schema.params import Params
from phototag.search.studies import Knob, Study, join_fields

DIGITS = 4  # of a proposed number: more make no difference, and are hard to read
Choice = bool | int | float | str | None


class Proposer(Protocol):
    """What of Optuna's trial is needed; it remembers what it proposed under a name."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """Propose a number."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Propose a whole number."""

    def suggest_categorical(self, name: str, choices: list[Choice]) -> Choice:
        """Propose a choice."""


def propose(trial: Proposer, study: Study, base: dict[str, Any]) -> dict[str, Any]:
    """Ask for a value of each key whose knob counts.

    Args:
        trial: Of Optuna.
        study: Whose space it is.
        base: The values of params.yaml with which trials start.

    Returns:
        Dotted key of params.yaml -> value.
    """
    settings: dict[str, Any] = {}
    for key, knobs in study.space.items():
        for knob in knobs:
            if all(settings.get(other) in values for other, values in knob.when.items()):
                # Of several knobs of one key each has its own range, and so its own name.
                words = "/".join(str(value) for values in knob.when.values() for value in values)
                name = key if len(knobs) == 1 or not words else f"{key} ({words})"
                settings[key] = _turn(trial, name, knob)
                break
    return _match_types(settings, base)


def _turn(trial: Proposer, name: str, knob: Knob) -> Any:
    if knob.choices is not None:
        # Optuna's own table holds plain values alone.
        plain = {
            value if isinstance(value, Choice) else json.dumps(value): value
            for value in knob.choices
        }
        return plain[trial.suggest_categorical(name, list(plain))]
    if knob.each is not None:
        assert knob.count is not None
        fewest, most = knob.count
        count = fewest
        if most > fewest:
            count = trial.suggest_int(f"{name}.count", fewest, most, step=1, log=False)
        return [
            join_fields(
                {
                    field: _turn(trial, ".".join(filter(None, [name, str(index), field])), each)
                    for field, each in knob.each.items()
                }
            )
            for index in range(count)
        ]
    low, high, step = knob.low, knob.high, knob.step
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        return trial.suggest_int(name, low, high, step=step or 1, log=knob.log)
    value = trial.suggest_float(name, low, high, step=step, log=knob.log)
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def _match_types(settings: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Write numbers as params.yaml reads them, so that equal settings are equal values."""
    try:
        values = Params.model_validate(apply_overrides(base, settings)).model_dump()
    except ValueError:  # told of the trial
        return settings
    for key, value in settings.items():
        place: Any = values
        for part in key.split("."):
            place = place[part]
        if isinstance(place, float) and isinstance(value, int):
            settings[key] = place
    return settings
