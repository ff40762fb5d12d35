"""Recipes: named settings that people start from, written into params.yaml."""

import difflib
import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.tokens import CommentToken
from yaml import MarkedYAMLError, safe_load

from phototag.base.errors import InputError
from phototag.base.files import read_source, replace_file
from phototag.base.keys import flatten
from phototag.experiments.claims import FILE, Experiments
from phototag.schema.params import validate_all


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
        settings |= flatten(given)
    return settings


def write_recipe(path: Path, settings: dict[str, Any]) -> str:
    """Write settings into params.yaml; whatever they do not name stays, comments too.

    Args:
        path: params.yaml.
        settings: Of `collect_settings`.

    Returns:
        The difference, as a unified diff; empty where there is none.

    Raises:
        InputError: The file is missing, not UTF-8 or no YAML, or what would come of it is refused:
            nothing is written then.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    try:
        before = read_source(path)
        values = yaml.load(before)
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
            _replace(place, last, _lay_out(value))
    stream = io.StringIO()
    yaml.dump(values, stream)
    after = stream.getvalue()
    try:
        validate_all(safe_load(after), str(path))
    except MarkedYAMLError as error:
        raise InputError(
            f"{path}: its comments are in the way of {', '.join(settings)} ({error.problem}): move "
            "those within lists above them"
        ) from None
    if after != before:
        with replace_file(path) as temporary:
            temporary.write_text(after, encoding="utf-8")
    return "".join(
        difflib.unified_diff(
            before.splitlines(True), after.splitlines(True), "before", "after", n=0
        )
    )


def _replace(place: CommentedMap, key: str, value: Any) -> None:
    """Put another value in the place of one; comments within a list come to stand above the new."""
    comments = _list_comments(place.get(key))
    slots = place.ca.items.get(key) or [None] * 4
    first = [token.value for token in _flatten(slots[3])]  # between the key and the first item
    slots[3] = None
    place[key] = value
    if not comments and not first:  # those of a value on one line are the key's
        return
    # What follows the last item on lines of its own belongs to the next key.
    *within, (own, below) = comments or [("", "")]
    parts = first + [part for pair in within for part in pair] + [own]
    lines = [line for part in parts for line in part.split("\n")]
    told = [line.strip().removeprefix("#").removeprefix(" ") for line in lines if line.strip()]
    if told:
        place.yaml_set_comment_before_after_key(key, "\n".join(told), indent=place.lc.col)
    if not below:
        return
    in_lines = isinstance(value, CommentedSeq) and not value.fa.flow_style()
    holder, index, slot = (value, len(value) - 1, 0) if in_lines else (place, key, 2)
    slots = holder.ca.items.setdefault(index, [None] * 4)
    before, mark = (
        (slots[slot].value.rstrip("\n"), slots[slot].start_mark)
        if slots[slot]
        else ("", CommentMark(0))
    )
    indent = " " * place.lc.col
    after = [line and indent + line for line in map(str.strip, below.split("\n"))]
    slots[slot] = CommentToken("\n".join([before, *after]), mark)


def _list_comments(node: Any) -> list[tuple[str, str]]:
    """List the comments behind the items of a list or a block: on its line, on those below."""
    if not isinstance(node, CommentedSeq | CommentedMap):
        return []
    found = []
    for key, child in node.items() if isinstance(node, CommentedMap) else enumerate(node):
        found += _list_comments(child)
        for token in _flatten(node.ca.items.get(key)):
            own, _, below = token.value.partition("\n")
            found.append((own, below))
    for token in _flatten(node.ca.end):
        own, below = found.pop() if found else ("", "")
        found.append((own, f"{below}{token.value}"))
    return found


def _flatten(tokens: Any) -> Iterator[CommentToken]:
    if isinstance(tokens, CommentToken):
        yield tokens
    for token in tokens if isinstance(tokens, list) else ():
        yield from _flatten(token)


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
