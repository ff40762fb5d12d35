"""The reference page of params.yaml, made from the schema, dvc.yaml and the file's comments."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from phototag.schema.params import Params

INTRODUCTION = """# params.yaml

Every parameter of the pipeline. A key below a group is written with a dot on the command line:
`dvc exp run -S train.ema=0.999`. A stage runs again when one of its parameters changes, and so do
the stages after it if its outputs change. Unknown, missing and misspelt keys are refused before the
first stage runs.
"""
HEADER = """
| Key | Type | In params.yaml | Stages | Description |
|---|---|---|---|---|
"""


def render_params(root: Path) -> str:
    """Return the page as Markdown.

    Args:
        root: Repository that holds params.yaml and dvc.yaml.
    """
    text = (root / "params.yaml").read_text()
    values = yaml.safe_load(text)
    comments = read_comments(text)
    stages = read_stages(root / "dvc.yaml")
    parts = [INTRODUCTION, "\n## Top level\n", HEADER]
    groups = {}
    for key, field in Params.model_fields.items():
        if group := group_of(field):
            groups[key] = group
        else:
            parts.append(render_row(key, field, values.get(key), comments, stages))
    for key in sorted(groups, key=list(values).index):
        parts += render_group(key, groups[key], values[key], comments, stages)
    return "".join(parts)


def render_group(
    key: str,
    group: type[BaseModel],
    values: Any,
    comments: dict[str, str],
    stages: dict[str, list[str]],
) -> Iterator[str]:
    """Yield the heading, the description and the table of one group, then its nested groups."""
    yield f"\n## {key}\n\n{inspect.getdoc(group)}\n"
    yield HEADER
    for name, field in group.model_fields.items():
        value = values.get(name) if isinstance(values, dict) else None
        yield render_row(f"{key}.{name}", field, value, comments, stages)
    for name, field in group.model_fields.items():
        nested = group_of(field)
        if nested:
            yield from render_group(f"{key}.{name}", nested, None, {}, stages)


def render_row(
    key: str, field: FieldInfo, value: Any, comments: dict[str, str], stages: dict[str, list[str]]
) -> str:
    """Return the table row of one key."""
    default = value if value is not None or field.is_required() else field.default
    shown = "" if group_of(field) else yaml.safe_dump(default, default_flow_style=True)
    readers = [stage for stage, keys in stages.items() if _reads(keys, key)]
    choices = " | ".join(map(str, get_args(field.annotation)))  # the column "Type" has them
    comment = comments.get(key, "")
    comment = "" if comment == choices else comment.removeprefix(f"{choices}; ")
    cells = [
        f"`{key}`",
        ", ".join(filter(None, (describe_type(field.annotation), describe_range(field)))),
        f"`{shown.removesuffix('...' + chr(10)).strip()}`" if shown else "",
        ", ".join(readers),
        field.description or comment,
    ]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _reads(keys: list[str], key: str) -> bool:
    """Return whether a stage lists the key, one of its groups or one of its children."""
    return any(
        key == listed or key.startswith(f"{listed}.") or listed.startswith(f"{key}.")
        for listed in keys
    )


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the group of a field, or of the entries of a list; None for a plain value."""
    for part in (field.annotation, *get_args(field.annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def describe_type(annotation: Any) -> str:
    """Return a type in the words of YAML, such as `list of int` or `null | str`."""
    names = {bool: "`true` | `false`", type(None): "`null`", float: "float", int: "int"}
    if annotation in names:
        return names[annotation]
    if annotation is str:
        return "string"
    if get_origin(annotation) is Literal:
        return " | ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (tuple, list):
        return f"list of {describe_type(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "groups (below)"
    parts = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return describe_type(parts[0])
    return " | ".join(describe_type(part) for part in parts) or str(annotation)


def describe_range(field: FieldInfo) -> str:
    """Return the limits of a field, such as `> 0, <= 1`."""
    limits = []
    for limit in field.metadata:  # objects of annotated_types, which pydantic depends on
        for name, sign in {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}.items():
            if hasattr(limit, name):
                limits.append(f"{sign} {getattr(limit, name)}")
        if getattr(limit, "min_length", 0):
            limits.append("not empty" if limit.min_length == 1 else f"length >= {limit.min_length}")
    return ", ".join(limits)


def read_comments(text: str) -> dict[str, str]:
    """Return the comments of params.yaml by dotted key.

    A comment belongs to the key on its line. A line without a key continues the comment above it
    if both start in the same column; otherwise it describes the next key. The header of the file,
    up to the first key, is skipped.
    """
    comments: dict[str, list[str]] = {}
    path: list[tuple[int, str]] = []
    waiting: list[str] = []
    key, column = "", -1
    for line in text.splitlines():
        comment = re.search(r"(?:^|\s)# ?(.*)", line)
        start = line.index("#") if comment else -1
        entry = re.match(r"( *)([a-z_0-9]+):", line)
        if entry:
            indent = len(entry[1])
            path = [*((depth, name) for depth, name in path if depth < indent), (indent, entry[2])]
            key = ".".join(name for _, name in path)
            comments[key] = [*waiting, *([comment[1]] if comment else [])]
            waiting, column = [], start
        elif comment and start == column:
            comments[key].append(comment[1])
        elif comment and comments:
            waiting.append(comment[1])
            column = -1
        else:
            waiting = []
    return {key: " ".join(lines) for key, lines in comments.items() if lines}


def read_stages(path: Path) -> dict[str, list[str]]:
    """Return the parameters that dvc.yaml lists for each stage."""
    stages = yaml.safe_load(path.read_text())["stages"]
    return {name: stage.get("params", []) for name, stage in stages.items()}
