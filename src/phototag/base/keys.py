"""Dotted keys of nested mappings: in {"model": {"conv": 1}}, `model.conv` has the value 1."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "", lists: bool = False) -> dict[str, Any]:
    """Flatten nested mappings into one dictionary with dotted keys.

    Args:
        values: Nested mappings.
        prefix: Text to prepend to each key.
        lists: Whether to flatten lists too, for example {"a": [8]} to {"a.0": 8}.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if lists and isinstance(value, list | tuple):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.", lists)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def apply_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `values`, changed by `overrides`, which maps dotted keys to new values.

    Raises:
        KeyError: A key of `overrides` does not exist in `values`.
    """
    changed = deepcopy(dict(values))
    for key, value in overrides.items():
        *groups, last = key.split(".")
        place: Any = changed
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise KeyError(key)
        place[last] = value
    return changed
