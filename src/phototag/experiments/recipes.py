"""Recipes: named values of params.yaml, and updates of params.yaml that keep its comments."""

import difflib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from yaml import safe_load

from phototag.base.errors import InputError
from phototag.base.files import read_source, write_text
from phototag.base.keys import flatten
from phototag.base.params import ParamGroup, read_values, validate_params
from phototag.schema.params import validate_all

FILE = Path("recipes.yaml")


class Recipe(ParamGroup):
    """One recipe.

    Attributes:
        description: One sentence for `phototag recipe`.
        params: Nested values that differ from the base.
    """

    description: str
    params: dict[str, Any]


class Recipes(ParamGroup):
    """All of recipes.yaml.

    Attributes:
        base: Nested values that a recipe sets unless its own params replace them; a key that one
            recipe sets must be here, so that another recipe sets it back.
        recipes: Name -> recipe.
    """

    base: dict[str, Any]
    recipes: dict[str, Recipe]


def read_recipes(path: Path = FILE) -> Recipes:
    """Read and validate recipes.yaml.

    Raises:
        InputError: The file is missing, not valid YAML, or has an unknown or missing key.
    """
    return validate_params(Recipes, read_values(path), str(path))


def recipe_params(recipes: Recipes, name: str) -> dict[str, Any]:
    """Return the values that a recipe sets: dotted key of params.yaml -> value.

    Raises:
        InputError: No recipe has this name.
    """
    if name not in recipes.recipes:
        raise InputError(f"{FILE} has no recipe {name!r}: choose {', '.join(recipes.recipes)}")
    return flatten(recipes.base) | flatten(recipes.recipes[name].params)


def update_params(path: Path, values: Mapping[str, Any]) -> str:
    """Write values into params.yaml and keep its other keys, their order and their comments.

    Comments inside a replaced list, or between it and the next key, are removed.

    Args:
        path: params.yaml.
        values: Dotted key -> new value.

    Returns:
        The change as a unified diff without context lines; empty if nothing changed.

    Raises:
        InputError: The file is missing or not valid YAML, a group is missing, or the new params
            are invalid. The file is not changed then.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # never wrap a line
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    read_values(path)  # reports YAML that is not valid
    before = read_source(path)
    params = yaml.load(before)
    for key, value in values.items():
        _set_value(params, key, value, path)
    stream = io.StringIO()
    yaml.dump(params, stream)
    after = stream.getvalue()
    validate_all(safe_load(after), str(path))
    if after == before:
        return ""
    write_text(path, after)
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, "before", "after", n=0))


def _set_value(params: Any, key: str, value: Any, path: Path) -> None:
    *groups, last = key.split(".")
    group = params
    for name in groups:
        group = group.get(name) if isinstance(group, CommentedMap) else None
    if not isinstance(group, CommentedMap):
        raise InputError(f"{path}: {key} is missing: add it")
    if group.get(last) == value:
        return
    # ruamel.yaml keeps a comment between a key and its list apart from the list, and would write
    # it in front of the new value on the key's line.
    if comments := group.ca.items.get(last):
        comments[3:] = [None]
    group[last] = _format_value(value)


def _format_value(value: Any) -> Any:
    """Lay out a list of blocks with one block per line, and any other list on one line."""
    if isinstance(value, list):
        items = CommentedSeq(map(_format_value, value))
        if not any(isinstance(item, dict) for item in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, dict):
        block = CommentedMap(value)
        block.fa.set_flow_style()
        return block
    return value
