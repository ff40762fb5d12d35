"""Read params.yaml, and define the field types of the packages' schemas.

Each package declares the params that it uses in its own `params.py`. A stage passes the schema of
its package to `read_params`; `phototag.schema` validates the whole file.
"""

from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from phototag.base.errors import InputError
from phototag.base.files import check_conflicts, read_source

FILE = Path("params.yaml")
MAX_PROBLEMS = 5  # maximum number of problems that an error message lists


def _parse_float(value: Any) -> Any:
    # `dvc exp run -S lr=0.00001` writes 1e-05, which PyYAML (YAML 1.1) reads as a string.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Float = Annotated[float, BeforeValidator(_parse_float), Field(allow_inf_nan=False)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[Float, Field(ge=0, le=1)]


class ParamGroup(BaseModel):
    """Base class for groups of params: immutable, strictly typed, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SizeParams(ParamGroup, extra="ignore"):
    """The key `resize.size`, which several stages read.

    Attributes:
        size: Side of the photos that the network processes, in pixels.
    """

    size: PositiveInt


Schema = TypeVar("Schema", bound=ParamGroup)


def read_params(schema: type[Schema], path: Path = FILE) -> Schema:
    """Read and validate the params that a schema declares; ignore other top-level keys.

    Raises:
        InputError: The file is missing or not valid YAML, or a param of the schema is missing,
            unknown or invalid.
    """
    values = read_values(path)
    own = {key: value for key, value in values.items() if key in schema.model_fields}
    return validate_params(schema, own, str(path))


def read_values(path: Path = FILE) -> dict[str, Any]:
    """Read params.yaml as plain Python values, without validating them.

    Raises:
        InputError: The file is missing, has conflict markers, or is not a YAML mapping in UTF-8.
    """
    return parse_values(read_source(path), path)


def parse_values(text: str, source: str | Path) -> dict[str, Any]:
    """Parse the text of a YAML file; error messages start with `source`."""
    check_conflicts(text, source)
    try:
        values = yaml.safe_load(text)
    # PyYAML raises a ValueError for dates such as 2025-02-31.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a mapping of keys to values, such as `seed: 0`")
    return values


def validate_params(schema: type[Schema], values: Mapping[str, Any], source: str) -> Schema:
    """Validate nested values against a schema; error messages start with `source`.

    Raises:
        InputError: A key is missing or unknown, or a value is invalid.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: {describe_validation_error(error)}") from None


def describe_validation_error(error: ValidationError) -> str:
    """Return one line of text that describes the first problems that pydantic found."""
    problems = error.errors(include_url=False)
    more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
    return "; ".join(_describe_problem(problem) for problem in problems[:MAX_PROBLEMS]) + more


def _describe_problem(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    given = problem["input"]
    match problem["type"]:
        case "missing":
            return f"{key} is missing"
        case "json_invalid":
            return f"not valid JSON: {problem['ctx']['error']}"
        case "extra_forbidden":
            return f"{key} is unknown: check its spelling and its group"
        case "tuple_type":
            items = "" if given is None else given
            return f"{key}: expected a list, not {short_repr(given)}: write [{items}]"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            message = f"{key}: {message[:1].lower()}{message[1:]}"
            # A message about a whole group already names the key and its value.
            return message if isinstance(given, dict) else f"{message}, not {short_repr(given)}"
