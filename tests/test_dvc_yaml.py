"""dvc.yaml must list exactly the packages, files and params on which each stage depends."""

import ast
import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "phototag"
Stages = dict[str, dict[str, Any]]


def module_file(name: str) -> Path | None:
    """Return the file of a module of stages or phototag; None for other modules."""
    folder = ROOT / "src" if name.partition(".")[0] == "phototag" else ROOT
    for path in (folder / f"{name.replace('.', '/')}.py", folder / name.replace(".", "/")):
        if path.is_file():
            return path
        if path.is_dir():
            return path / "__init__.py"
    return None


class RuntimeOnly(ast.NodeTransformer):
    """Removes `if TYPE_CHECKING:` blocks, which never run."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node


@cache
def imported_files(path: Path) -> set[Path]:
    if path.suffix == ".j2":
        extended = re.findall(r'{% extends "(.+?)"', path.read_text())
        return {PACKAGE / "pages" / "templates" / name for name in extended}
    found = set()
    tree = RuntimeOnly().visit(ast.parse(path.read_text()))
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                base = module or "" if level == 0 else f"stages.{module}" if module else "stages"
                modules = [base, *(f"{base}.{alias.name}" for alias in names)]
            case _:
                continue
        for module in modules:
            if module.partition(".")[0] in ("phototag", "stages"):
                found.add(module_file(module))
    # Templates of the module are code too.
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            if len(node.value) < 80 and (path.parent / "templates" / node.value).is_file():
                found.add(path.parent / "templates" / node.value)
            if len(node.value) < 80 and (path.parent / node.value).is_file():
                found.add(path.parent / node.value)
    return {file for file in found if file}


@cache
def is_code(path: Path) -> bool:
    """Return whether a file has statements other than docstrings."""
    if path.suffix != ".py":
        return True
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def sources(script: Path) -> set[str]:
    """Return the script and the packages that it imports, directly or through others."""
    seen: set[Path] = set()
    queue = [script]
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue += imported_files(path)
    return {place(path).relative_to(ROOT).as_posix() for path in seen if is_code(path)}


def place(path: Path) -> Path:
    """Return the package of a file, or the file itself if it is in none."""
    if not path.is_relative_to(PACKAGE) or path.parent == PACKAGE:
        return path
    return PACKAGE / path.relative_to(PACKAGE).parts[0]


@cache
def used_params(script: Path) -> set[str]:
    """Return the dotted params that a script reads."""
    used = set()
    tree = ast.parse(script.read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            dotted = ast.unparse(node)
            if dotted == "params.train_settings":
                used |= train_settings()
            elif dotted.startswith("params."):
                used.add(dotted.removeprefix("params.").removesuffix(".model_dump"))
    return used - {"model_dump"}


@cache
def train_settings() -> set[str]:
    from phototag.schema.params import read_all_params

    return set(read_all_params(ROOT / "params.yaml").train_settings())


def problems(stages: Stages) -> list[str]:
    found = []
    for name, stage in stages.items():
        script = module_file(stage["cmd"].removeprefix("python -m "))
        assert script, f"{name}: {stage['cmd']} runs no script of ours"
        listed = {dep for dep in stage["deps"] if dep.startswith(("src/", "stages/"))}
        actual = sources(script)
        found += [f"{name}: deps omit {path}" for path in sorted(actual - listed)]
        found += [f"{name}: deps add {path}" for path in sorted(listed - actual)]

        params, used = set(stage.get("params", [])), used_params(script)
        for group in list(used):  # dvc.yaml may list a group key by key
            if any(param.startswith(f"{group}.") for param in params):
                used = used - {group} | {f"{group}.{key}" for key in read_values()[group]}
        covers = {(p, u) for p in params for u in used if u == p or u.startswith(f"{p}.")}
        found += [f"{name}: params omit {u}" for u in sorted(used - {u for _, u in covers})]
        found += [f"{name}: params add {p}" for p in sorted(params - {p for p, _ in covers})]

        text = script.read_text()
        data = set(stage["deps"]) - listed - {"${data.raw}"}
        for kind in ("outs", "metrics"):
            data |= {
                next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, [])
            }
        found += [f"{name}: the script never names {p}" for p in sorted(data) if not named(p, text)]
        found += [
            f"{name}: neither deps nor outs list {p}" for p in sorted(data_files(script) - data)
        ]
    return found


@cache
def read_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return values


def names_inside(value: Any) -> set[str]:
    """Return the keys of a nested value, at any depth."""
    if isinstance(value, list):
        return set().union(*map(names_inside, value))
    if not isinstance(value, dict):
        return set()
    return {str(key) for key in value}.union(*map(names_inside, value.values()))


def data_files(script: Path) -> set[str]:
    """Return the data files whose full path is a constant in the script."""
    constants = {
        node.value
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
    }
    folders = ("data/", "models/", "reports/")
    return {value for value in constants if value.startswith(folders)} - {"reports/evaluate"}


def named(path: str, text: str) -> bool:
    """Return whether a script contains the path of a data file, or its folder and its name."""
    name = Path(path).name
    return path in text or (
        str(Path(path).parent) in text and (name in text or Path(name).stem in text)
    )


def read_stages() -> Stages:
    stages: Stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return stages


def test_dvc_yaml_lists_exactly_what_stages_depend_on() -> None:
    assert problems(read_stages()) == []


@pytest.mark.parametrize("stage", sorted(read_stages()))
def test_guard_fails_when_any_source_is_removed(stage: str) -> None:
    stages = read_stages()
    for dep in [dep for dep in stages[stage]["deps"] if dep.startswith(("src/", "stages/"))]:
        changed = copy.deepcopy(stages)
        changed[stage]["deps"].remove(dep)
        assert problems(changed) == [f"{stage}: deps omit {dep}"]


@pytest.mark.parametrize(
    "stage", ["resize", "split", "normalize-stats", "train", "evaluate", "register"]
)
def test_guard_fails_when_any_data_file_is_removed(stage: str) -> None:
    stages = read_stages()
    for dep in [d for d in stages[stage]["deps"] if d.startswith(("data/", "models/", "reports/"))]:
        changed = copy.deepcopy(stages)
        changed[stage]["deps"].remove(dep)
        assert problems(changed) == [f"{stage}: neither deps nor outs list {dep}"]


def test_guard_fails_when_a_superfluous_source_is_added() -> None:
    stages = read_stages()
    stages["train"]["deps"].append("src/phototag/registry")
    assert problems(stages) == ["train: deps add src/phototag/registry"]


def test_guard_fails_when_a_param_is_removed_or_added() -> None:
    stages = read_stages()
    stages["train"]["params"].remove("lr")
    stages["split"]["params"].append("lr")
    assert problems(stages) == ["split: params add lr", "train: params omit lr"]


def test_no_import_is_hidden_from_this_test() -> None:
    """Only checks of params may be hidden, because they change no output."""
    hidden = [
        (path.relative_to(ROOT).as_posix(), ast.unparse(node))
        for folder in ("stages", "src")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
        and ast.unparse(node) != "import_module('timm')"  # an optional dependency
    ]
    checks = "import_module('phototag.schema.checks')"
    assert hidden == [("stages/__init__.py", checks), ("stages/resize.py", checks)]


def test_run_cache_of_dvc_covers_all_params() -> None:
    """The run cache ignores keys with these names, also inside a group that is listed whole."""
    for name, stage in read_stages().items():
        for param in stage.get("params", []):
            value: Any = read_values()
            for key in param.split("."):
                value = value[key]
            assert not names_inside(value) & {"size", "nfiles"}, (name, param)
