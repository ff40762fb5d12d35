"""Recipes: named sets of values for params.yaml, and the name of the recipe of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.base.params import ParamGroup, read_values, validate_params

FILE = Path("recipes.yaml")


class Recipe(ParamGroup):
    """A recipe: a named set of values for params.yaml.

    Attributes:
        description: Description of the recipe in one sentence, printed by `phototag recipe`.
        params: Nested params that this recipe sets to values other than those in `base`.
    """

    description: str
    params: dict[str, Any]


class Recipes(ParamGroup):
    """The contents of recipes.yaml.

    Attributes:
        base: Nested params with the default values for all recipes. Each recipe sets all of these
            params. A recipe cannot set other params, because other recipes would not reset them.
        recipes: Mapping from the name of each recipe to the recipe.
    """

    base: dict[str, Any]
    recipes: dict[str, Recipe]


def read_recipes(path: Path = FILE) -> Recipes:
    """Read and validate recipes.yaml.

    Raises:
        InputError: The file is missing or is not valid YAML, or a key is missing or unknown.
    """
    return validate_params(Recipes, read_values(path), str(path))


def recipe_params(recipes: Recipes, name: str) -> dict[str, Any]:
    """Return the params that a recipe sets, as a mapping from dotted keys to values.

    Raises:
        InputError: There is no recipe with this name, or the recipe sets a key that is not in
            `base`.
    """
    if name not in recipes.recipes:
        names = ", ".join(recipes.recipes)
        raise InputError(f"{FILE} has no recipe {name!r}: choose one of {names}")
    base, own = flatten(recipes.base), flatten(recipes.recipes[name].params)
    for key in own:
        if key not in base:
            raise InputError(f"{FILE}: recipe {name} sets {key}, which is not in base: add it")
    return base | own


def name_recipe(params: Mapping[str, Any], recipes: Recipes | None) -> str:
    """Return the name of the recipe of a training, such as `pretrained` or `pretrained, changed`.

    Args:
        params: Nested params of the training. `recipe` is the recipe that was applied last.
        recipes: Recipes at the time of the training, or None if recipes.yaml cannot be read. Then,
            the function cannot check whether params were changed after the recipe was applied.

    Returns:
        The name, or an empty string if no recipe was applied.
    """
    name = params.get("recipe") or ""
    if recipes is None or name not in recipes.recipes:
        return str(name)
    values = flatten(params)
    wanted = recipe_params(recipes, name)
    changed = any(values.get(key) != value for key, value in wanted.items())
    return f"{name}, changed" if changed else name
