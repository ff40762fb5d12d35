"""The studies of search.yaml: what is searched, by what it is judged, how long."""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from phototag.base.errors import InputError
from phototag.base.files import read_source
from phototag.base.keys import apply_overrides, flatten
from phototag.base.params import (
    Float,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    describe_validation_error,
)
from phototag.schema.params import Params

FILE = Path("search.yaml")
Objective = Literal["val_loss", "mAP", "f1_macro"]
Number = int | Float
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
# Besides what training depends on: how photos look.
SEARCHED_TOO = ("resize.size",)
# Of what training depends on: these are given in other ways, or say how to compute.
NEVER = ("seed", "precision", "train.compile", "train.devices", "train.num_nodes")


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Knob(_Group):
    """What one key may be: a number within bounds, one of some choices, or a list of such.

    Attributes:
        low: The smallest number; whole numbers stay whole.
        high: The largest.
        log: Whether numbers are as dense between 1 and 2 as between 10 and 20.
        step: Between numbers, counted from the smallest.
        choices: Values of any kind.
        count: How long a list may be, at least and at most.
        each: Of a list: the field of an item -> its knob; or the knob of an item that is a plain
            value, under "".
        when: Name of a knob above this one, of choices -> those with which this one counts.
    """

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Number | None = None
    choices: Annotated[tuple[Any, ...] | None, BeforeValidator(_as_tuple)] = None
    count: Annotated[tuple[NonNegativeInt, NonNegativeInt] | None, BeforeValidator(_as_tuple)] = (
        None
    )
    each: Annotated[dict[str, "Knob"] | None, BeforeValidator(lambda value: _as_fields(value))] = (
        None
    )
    when: dict[str, Annotated[tuple[Any, ...], BeforeValidator(_as_tuple)]] = {}

    @model_validator(mode="after")
    def _be_one_thing(self) -> "Knob":
        numbers = self.low is not None or self.high is not None
        listed = self.count is not None or self.each is not None
        if numbers + (self.choices is not None) + listed != 1:
            raise ValueError("give low and high, or choices, or count and each")
        if numbers:
            self._check_numbers()
        elif self.log or self.step is not None:
            raise ValueError("log and step go with low and high")
        if self.choices is not None:
            names = [json.dumps(value, sort_keys=True, default=str) for value in self.choices]
            if len(set(names)) < 2 or len(set(names)) < len(names):
                raise ValueError("choices must be two values or more, each once")
        if listed:
            if self.count is None or not self.each:
                raise ValueError("count and each go together")
            if self.count[0] > self.count[1]:
                raise ValueError(f"count goes from {self.count[0]} down to {self.count[1]}")
            if any(knob.each or knob.when for knob in self.each.values()):
                raise ValueError("each takes numbers and choices, without when")
        return self

    def _check_numbers(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError("low and high go together")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step ({self.step}) must be above 0 and fit between low and high")


def _as_fields(value: Any) -> Any:
    """Write the knob of plain items as that of a field without a name."""
    own = isinstance(value, dict) and value.keys() & {"low", "high", "choices"}
    if own and not any(isinstance(field, dict) for field in value.values()):
        return {"": value}
    return value


def _as_alternatives(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Alternatives = Annotated[
    tuple[Knob, ...], Field(min_length=1, strict=False), BeforeValidator(_as_alternatives)
]


class Study(_Group):
    """One search.

    Attributes:
        says: What is sought, in a sentence.
        recipe: Recipe from which trials start (default: the values of params.yaml).
        settings: Dotted keys of params.yaml -> values that all trials share besides.
        space: Dotted key -> its knob, or several, of which the first counts whose `when` holds. A
            key whose knobs all do not count is as trials start.
        objective: On val, of the epoch whose weights are kept; val_loss falls, the others rise.
        trials: How many, at most.
        hours: Of all trials together, after which none begins.
        seeds: Each trial trains once with each of them, and is worth the mean.
        sampler: tpe learns from earlier trials, random does not.
        compute: A network that takes more operations a photo than so many times those of the one
            from which trials start is not trained. It keeps the few that cost most from taking most
            of the time.
        pruner: Which trials end early: none; those below the median of earlier ones at the same
            epoch; or Hyperband's.
        seed: Of what the search itself draws.
    """

    says: str
    recipe: str | None = None
    settings: dict[str, Any] = {}
    space: Annotated[dict[str, Alternatives], Field(min_length=1)]
    objective: Objective = "val_loss"
    trials: PositiveInt
    hours: PositiveFloat | None = None
    compute: PositiveFloat | None = None
    seeds: Annotated[
        tuple[NonNegativeInt, ...], Field(min_length=1), BeforeValidator(_as_tuple)
    ] = (0,)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "none"
    seed: NonNegativeInt = 0

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.objective != "val_loss"

    @model_validator(mode="after")
    def _check_conditions(self) -> "Study":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds names one twice")
        above: dict[str, tuple[Any, ...]] = {}
        for key, knobs in self.space.items():
            for knob in knobs:
                for other, values in knob.when.items():
                    if other not in above:
                        raise ValueError(
                            f"space.{key}: when names {other!r}, which is no knob of choices above"
                        )
                    for value in values:
                        if value not in above[other]:
                            raise ValueError(
                                f"space.{key}: when waits for {other} {value!r}, which is none of "
                                "its choices"
                            )
            if any(not knob.when for knob in knobs[:-1]):
                raise ValueError(f"space.{key}: knobs after one without when never count")
            if len(knobs) == 1 and knobs[0].choices:
                above[key] = knobs[0].choices
        return self


class Search(_Group):
    """All of search.yaml."""

    # Experiments are named by it, which git and MLflow must take.
    studies: Annotated[dict[Name, Study], Field(min_length=1)]


def read_search(path: Path = FILE) -> Search:
    """Read search.yaml, and check it by itself; `check_study` holds it against params.yaml.

    Raises:
        InputError: The file is missing, not UTF-8 or no YAML, or something in it is wrong.
    """
    try:
        return Search.model_validate(yaml.safe_load(read_source(path)))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(error)}") from None


def _describe(error: ValidationError) -> str:
    """Tell the first thing that is wrong, with its place."""
    problem = error.errors()[0]
    # A knob that is alone is the first of its alternatives.
    parts = [str(part) for part in problem["loc"] if part not in (0, "int", "function-before")]
    place = ".".join(part for part in parts if part and not part.startswith("function-"))
    match problem["type"]:
        case "missing":
            told = "is missing"
        case "extra_forbidden":
            told = "is unknown (misspelt, or in the wrong place?)"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            told = f"{message[:1].lower()}{message[1:]}"
            if not isinstance(problem["input"], dict) and problem["type"] != "value_error":
                told += f", not {problem['input']!r}"
            return f"{place or 'the file'}: {told}"
    return f"{place or 'the file'} {told}"


def find_study(search: Search, name: str) -> Study:
    """Return a study by its name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in search.studies:
        raise InputError(f"{FILE} has no study {name!r}; it has {', '.join(search.studies)}")
    return search.studies[name]


def describe_studies(search: Search) -> str:
    """Tell each study's name and what it seeks."""
    width = max(map(len, search.studies))
    return "\n".join(f"{name:<{width}}  {study.says}" for name, study in search.studies.items())


def check_study(name: str, study: Study, base: dict[str, Any]) -> None:
    """Hold a study against params.yaml, before its first trial.

    Each bound and each choice is tried alone. What only several together do wrong (a map that
    shrinks to nothing, say) is found when they are proposed, and that trial is infeasible.

    Args:
        name: Of the study.
        study: The study.
        base: The values of params.yaml with which trials start.

    Raises:
        InputError: A key is unknown or must not be searched, or params.yaml would refuse a value.
    """
    place = f"{FILE}: studies.{name}"
    try:
        start = Params.model_validate(base)
    except ValidationError as error:
        raise InputError(
            f"{place}: with its recipe and settings over params.yaml, "
            f"{describe_validation_error(error)}"
        ) from None
    known = flatten(base)
    if base["train"]["devices"] * base["train"]["num_nodes"] > 1:
        raise InputError(
            f"{place}: a trial trains in one process, and params.yaml asks for several: set "
            "train.devices and train.num_nodes to 1"
        )
    if study.compute is not None and (
        base["model"]["name"] != "conv" or "model.name" in study.space
    ):
        raise InputError(f"{place}.compute is for networks of model.conv alone: leave it out")
    allowed = [*flatten(start.train_settings())]
    searchable = {key for key, _ in allowed} - set(NEVER) | set(SEARCHED_TOO)
    for key, knobs in study.space.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"{place}.space.{key} is no key of params.yaml{hint}")
        if key not in searchable:
            raise InputError(
                f"{place}.space.{key} cannot be searched: "
                + (
                    "`seeds` says with which seeds trials train"
                    if key == "seed"
                    else "it is none of the settings that decide what is learnt from the photos"
                )
            )
        for knob in knobs:
            context = {other: values[0] for other, values in knob.when.items()}
            for value in _list_extremes(knob, known[key]):
                problem = _find_problem(base, context, key, value)
                if problem:
                    raise InputError(f"{place}.space.{key}: {problem}")


def _list_extremes(knob: Knob, present: Any) -> Iterator[Any]:
    """Yield values that a knob may give its key: each bound and choice, one at a time."""
    if knob.choices is not None:
        yield from knob.choices
    elif knob.each is not None:
        assert knob.count is not None
        alone = {field: next(_list_extremes(each, None)) for field, each in knob.each.items()}
        for length in knob.count:
            yield [join_fields(alone)] * length
        for field, each in knob.each.items():
            for value in _list_extremes(each, None):
                yield [join_fields(alone | {field: value})]
    else:
        yield from (knob.low, knob.high)
        if knob.step is not None:
            assert knob.low is not None
            yield knob.low + knob.step


def join_fields(fields: Mapping[str, Any]) -> Any:
    """Return an item of a list: a plain value, or a mapping of its fields."""
    return fields[""] if "" in fields else dict(fields)


def _find_problem(base: dict[str, Any], context: Mapping[str, Any], key: str, value: Any) -> str:
    """Say why params.yaml refuses a value of a key; nothing where it does not."""
    try:
        Params.model_validate(apply_overrides(base, {**context, key: value}))
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(map(str, problem["loc"]))
            # Of a group as a whole several keys are to blame: they are searched together.
            if where == key or where.startswith(f"{key}."):
                message = problem["msg"].removeprefix("Value error, ")
                inner = where.removeprefix(key).lstrip(".")
                inner = ".".join(part for part in inner.split(".") if not part.isdecimal())
                told = f"{message[:1].lower()}{message[1:]}, not {problem['input']!r}"
                return f"{inner}: {told}" if inner else told
    return ""
