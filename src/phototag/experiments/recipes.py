"""Recipes: named settings that people start from, written into params.yaml."""

import difflib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.base.params import Params, describe_problems
from phototag.experiments.claims import FILE, Experiments, flatten


def describe_recipes(experiments: Experiments) -> str:
    """Tell each recipe's name and what it is."""
    width = max(map(len, experiments.recipes))
    return "\n".join(
        f"{name:<{width}}  {recipe.says}" for name, recipe in experiments.recipes.items()
    )


def collect_settings(experiments: Experiments, name: str) -> dict[str, Any]:
    """Return all that a recipe decides: what it does not change is as the base has it.

    Args:
        experiments: Of `read_experiments`.
        name: Of a recipe.

    Returns:
        Dotted key of params.yaml -> value.

    Raises:
        InputError: There is no recipe of that name.
    """
    if name not in experiments.recipes:
        raise InputError(f"{FILE} has no recipe {name!r}; it has {', '.join(experiments.recipes)}")
    settings: dict[str, Any] = {}
    own = experiments.variants[name], experiments.recipes[name].model_extra or {}
    for given in (experiments.base, *own):
        settings |= dict(flatten(given))
    return settings


def write_recipe(path: Path, settings: dict[str, Any]) -> str:
    """Write settings into params.yaml; whatever they do not name stays, comments too.

    Args:
        path: params.yaml.
        settings: Of `collect_settings`.

    Returns:
        The difference, as a unified diff; empty where there is none.

    Raises:
        InputError: The file is missing or no YAML, or what would come of it is refused: nothing
            is written then.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    try:
        before = path.read_text(encoding="utf-8")
        values = yaml.load(before)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run from the repository's root") from None
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    for key, value in settings.items():
        *groups, last = key.split(".")
        place = values
        for group in groups:
            place = place.get(group) if isinstance(place, CommentedMap) else None
        if not isinstance(place, CommentedMap):
            raise InputError(f"{path}: {key} is missing")
        if place.get(last) != value:
            place[last] = _lay_out(value)
    stream = io.StringIO()
    yaml.dump(values, stream)
    after = stream.getvalue()
    try:
        Params.model_validate(YAML(typ="safe", pure=True).load(after))
    except ValidationError as error:
        raise InputError(f"{path}: {describe_problems(error)}") from None
    if after != before:
        with replace_file(path) as temporary:
            temporary.write_text(after, encoding="utf-8")
    return "".join(
        difflib.unified_diff(
            before.splitlines(True), after.splitlines(True), "before", "after", n=0
        )
    )


def name_missing(settings: dict[str, Any]) -> list[str]:
    """List packages that bring a recipe's networks or weights, and are not installed."""
    packages = ["timm"] if "timm/" in settings["model.name"] else []
    weights = settings["model.weights"] or []
    packages += [weights] if isinstance(weights, str) else weights
    # A file is no package, and its name no identifier.
    packages = [name for name in packages if name != "DEFAULT" and name.isidentifier()]
    return [name for name in packages if not find_spec(name)]


def _lay_out(value: Any) -> Any:
    """Write a block of the network on one line."""
    if isinstance(value, list):
        items = CommentedSeq(map(_lay_out, value))
        if not any(isinstance(item, dict) for item in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, dict):
        block = CommentedMap(value)
        block.fa.set_flow_style()
        return block
    return value
