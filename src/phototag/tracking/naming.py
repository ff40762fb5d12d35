"""Name of a project in MLflow: the name of its experiment and of its registered model."""

import re
from typing import Any
from unicodedata import normalize

from phototag.base.errors import InputError
from phototag.base.files import project_root
from phototag.base.params import FILE, read_values

DEFAULT = "phototag"  # name of a project whose folder has no letter or digit in its name
MAX_LENGTH = 200  # MLflow accepts at most 256 characters
RESERVED = "default"  # experiment that MLflow creates in every store


def check_name(name: str | None) -> str | None:
    """Return `registry.name` if it is valid in MLflow and in addresses such as `models:/NAME/1`.

    Raises:
        ValueError: The name has other characters, or is the name of MLflow's own experiment.
    """
    if name is not None and name != clean_name(name):
        raise ValueError(
            f"use at most {MAX_LENGTH} letters, digits, `.`, `_` and `-`, starting with a letter "
            f"or digit, for example {clean_name(name)}"
        )
    return name


def clean_name(name: str) -> str:
    """Return the valid name that is most similar to the name of a folder."""
    cleaned = re.sub(r"[^\w.-]+", "-", normalize("NFC", name)).lstrip("._-")
    cleaned = cleaned[:MAX_LENGTH].rstrip("-") or DEFAULT
    return f"{cleaned}-photos" if cleaned.lower() == RESERVED else cleaned


def project_name() -> str:
    """Return `registry.name`, or the cleaned name of the project's folder if it is null.

    A copy of the project in which DVC runs an experiment has the name of the project.

    Raises:
        InputError: params.yaml is not valid YAML, or `registry.name` is not a valid name.
    """
    root = project_root()
    file = FILE if FILE.is_file() else root / FILE
    group = read_values(file).get("registry") if file.is_file() else None
    name: Any = group.get("name") if isinstance(group, dict) else None
    if name is None:
        return clean_name(root.resolve().name)
    try:
        return str(check_name(str(name)))
    except ValueError as error:
        raise InputError(f"{file}: registry.name: {error}, not {name!r}") from None
