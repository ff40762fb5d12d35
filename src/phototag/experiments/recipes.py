"""Changes to params.yaml, such as the values of a recipe. Comments in the file are preserved."""

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
from phototag.base.params import read_values
from phototag.schema.params import validate_all


def update_params(path: Path, values: Mapping[str, Any]) -> str:
    """Set values in params.yaml. Other keys, the order of keys and comments are preserved.

    If a list is replaced, however, the comments inside and directly after this list are removed.
    `values` maps dotted keys to new values.

    Returns:
        Unified diff of the file (no context lines), or an empty string if nothing changed.

    Raises:
        InputError: The file is missing or not valid YAML, a group of params is not a mapping, or
            the new params are invalid. In each case, the file is not changed.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # wide enough that no line is wrapped
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    read_values(path)  # raises an InputError if the file is not valid YAML
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
        group = group.setdefault(name, CommentedMap()) if isinstance(group, CommentedMap) else None
    if not isinstance(group, CommentedMap):
        raise InputError(f"{path}: the group of {key} is not a mapping: correct the group")
    if group.get(last) == value:
        return
    # A comment may be between a key and its list. ruamel.yaml would write this comment on the key's
    # line, before the new value. Therefore, the comment is removed.
    if comments := group.ca.items.get(last):
        comments[3:] = [None]
    group[last] = _format_value(value)


def _format_value(value: Any) -> Any:
    """Format a list of mappings with one mapping per line. Write any other list on one line."""
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
