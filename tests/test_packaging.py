"""Tests of what pyproject.toml declares."""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import phototag

ROOT = Path(__file__).parents[1]
OWN = {"benchmarks", "phototag", "stages", "tests", "tools"}
# Packages whose name differs from the name of the module that they install.
PACKAGES = {
    "markdown_it": "markdown-it-py",
    "PIL": "pillow",
    "ruamel": "ruamel-yaml",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def imported_packages(folder: Path) -> set[str]:
    modules = {
        module.partition(".")[0]
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for module in imported_modules(node)
    }
    foreign = modules - OWN - sys.stdlib_module_names
    return {PACKAGES.get(module, module).replace("_", "-") for module in foreign}


def imported_modules(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom(module=str(module), level=0):
            yield module
        case ast.Call(
            func=ast.Name(id="import_module" | "find_spec") | ast.Attribute(attr="importorskip"),
            args=[ast.Constant(value=str(module)), *_],
        ):
            yield module


@pytest.mark.parametrize(
    ("folder", "groups"),
    [
        ("src", []),
        ("stages", []),
        ("tests", ["dev"]),
        ("tools", ["dev", "docs"]),
        ("benchmarks", ["dev", "bench"]),
    ],
)
def test_every_imported_package_is_declared(folder: str, groups: list[str]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tables = [
        settings["project"]["dependencies"],
        *settings["project"]["optional-dependencies"].values(),
        *(settings["dependency-groups"][group] for group in groups),
    ]
    names = {re.split(r"[^\w.-]", name)[0].lower() for table in tables for name in table}
    declared = {re.sub(r"[._]", "-", name) for name in names}
    assert imported_packages(ROOT / folder) <= declared


def test_import_on_windows_names_the_supported_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ImportError, match="phototag runs on Linux and macOS"):
        importlib.reload(phototag)
