import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.cli import typer_app
from phototag.experiments.recipes import update_params
from phototag.schema.params import Params, read_all_params
from phototag.tracking.recipes import FILE, name_recipe, read_recipes, recipe_params
from tests.conftest import SHIPPED_PARAMS

REPOSITORY = SHIPPED_PARAMS.parent
SHIPPED = read_recipes(REPOSITORY / FILE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHIPPED_PARAMS, tmp_path / "params.yaml"))


def apply(path: Path, name: str) -> str:
    return update_params(path, recipe_params(SHIPPED, name))


def test_base_has_the_shipped_value_of_each_param_that_the_weights_depend_on(
    shipped_params: Params,
) -> None:
    shipped = flatten(yaml.safe_load(SHIPPED_PARAMS.read_text()))
    # A key that a recipe does not set would keep its value from an earlier edit.
    trained = flatten(shipped_params.train_settings()).keys() - {"seed"} | {"resize.size"}
    assert flatten(SHIPPED.base) == {key: shipped[key] for key in trained}


@pytest.mark.parametrize("name", SHIPPED.recipes)
def test_recipe_gives_the_same_params_after_any_other(path: Path, name: str) -> None:
    apply(path, name)
    alone, params = yaml.safe_load(path.read_text()), read_all_params(path)
    assert params.epochs == recipe_params(SHIPPED, name)["epochs"]
    for other in SHIPPED.recipes:
        apply(path, other)
        apply(path, name)
        assert yaml.safe_load(path.read_text()) == alone
    assert apply(path, name) == ""
    apply(path, "report")
    assert path.read_bytes() == SHIPPED_PARAMS.read_bytes()
    assert yaml.safe_load(path.read_text())["recipe"] == "report"


def test_update_params_keeps_other_lines_and_returns_the_diff(path: Path) -> None:
    text = path.read_text().replace("raw: data/sample ", "raw: 'my photos.zip' # mine\n ")
    text = text.replace("seed: 0", "seed: 12").replace("rotate: 0", "rotate: 10")
    path.write_text(text)
    change = apply(path, "phototag")
    now, lines = path.read_text(), [line for line in change.splitlines() if line[:1] in "+-"]
    assert "raw: 'my photos.zip' # mine\n" in now
    assert "seed: 12 " in now
    before, after = set(text.splitlines()), set(now.splitlines())
    assert {line[1:] for line in lines[2:] if line[0] == "-"} == before - after
    assert {line[1:] for line in lines[2:] if line[0] == "+"} == after - before
    assert any(line.startswith("+  rotate: 0 ") for line in lines)
    comments = [line.partition("#")[2] for line in text.splitlines()]
    assert [line.partition("#")[2] for line in now.splitlines() if "#" in line] == [
        comment for comment in comments if comment
    ]


@pytest.mark.parametrize("name", ["phototag", "pretrained"])
def test_update_params_replaces_a_list_and_its_comments(path: Path, name: str) -> None:
    blocks = "  linear:   # of linear\n    # widest first\n    - 2048  # wide\n    - 512\n"
    path.write_text(re.sub("(?m)^  linear: .*\n", blocks, path.read_text()))
    assert "-    - 2048  # wide\n" in apply(path, name)
    assert "# of linear\n" in path.read_text()
    now = flatten(yaml.safe_load(path.read_text()))
    assert all(now[key] == value for key, value in recipe_params(SHIPPED, name).items())


def test_name_of_the_recipe_states_whether_its_values_were_changed(path: Path) -> None:
    update_params(path, recipe_params(SHIPPED, "pretrained") | {"recipe": "pretrained"})
    for changes, name in (
        ({}, "pretrained"),
        ({"seed": 7, "split.val": 0.2}, "pretrained"),  # no recipe sets these params
        ({"lr": 0.5}, "pretrained, changed"),
        ({"recipe": None}, ""),
        ({"recipe": "of mine"}, "of mine"),
    ):
        update_params(path, changes)
        assert name_recipe(yaml.safe_load(path.read_text()), SHIPPED) == name
    assert name_recipe({"recipe": "pretrained"}, None) == "pretrained"


def test_update_params_adds_a_key_with_a_default(path: Path) -> None:
    finetune = "(?s)finetune: .*?\n\n"  # the whole group
    path.write_text(re.sub(f"{finetune}|  accumulate: .*?\n", "", path.read_text()))
    assert read_all_params(path).train.accumulate == 1
    apply(path, "phototag")
    written = yaml.safe_load(path.read_text())
    assert written["train"]["accumulate"] == 1
    assert written["finetune"] == SHIPPED.base["finetune"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split:  ", "splt:  ", "split is missing; splt is unknown"),
        ("model:\n", "model: [\n", "not valid YAML"),
        ("model:\n", "models:\n", "models is unknown: check its spelling"),
        ("finetune: ", "finetune: 1\nmodels:", "the group of finetune.* is not a mapping"),
        ("seed: 0", "seed: -1", "seed: input should be greater"),
    ],
)
def test_update_params_refuses_invalid_params(path: Path, old: str, new: str, message: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        apply(path, "phototag")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    with pytest.raises(InputError, match=r"params\.yaml is missing"):
        apply(path, "phototag")


def test_unknown_recipe_and_unknown_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no recipe 'best': choose one of report, phototag, pretrained"
    ):
        recipe_params(SHIPPED, "best")
    broken = yaml.safe_load((REPOSITORY / FILE).read_text())
    broken["recipes"]["fast"] = {"describe": "A fast one.", "params": {}}
    (tmp_path / FILE).write_text(yaml.safe_dump(broken))
    with pytest.raises(InputError, match=r"recipes\.fast\.description is missing"):
        read_recipes(tmp_path / FILE)
    broken["recipes"]["fast"] = {"description": "A fast one.", "params": {"train": {"devices": 2}}}
    (tmp_path / FILE).write_text(yaml.safe_dump(broken))
    with pytest.raises(InputError, match=r"recipe fast sets train\.devices, which is not in base"):
        recipe_params(read_recipes(tmp_path / FILE), "fast")


def test_recipe_command_works_from_a_subfolder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(REPOSITORY / FILE, path.parent)
    (path.parent / "data").mkdir()
    monkeypatch.chdir(path.parent / "data")
    run = CliRunner().invoke
    listed = run(typer_app, ["recipe"]).output.splitlines()
    assert [line.split()[0] for line in listed] == list(SHIPPED.recipes)
    assert path.read_bytes() == SHIPPED_PARAMS.read_bytes()
    printed = run(typer_app, ["recipe", "pretrained"]).output
    assert "+  freeze: true" in printed
    assert printed.endswith(
        "evaluate.resamples, registry.name, registry.experiments\nNext: dvc repro\n"
    )
    assert yaml.safe_load(path.read_text())["recipe"] == "pretrained"
    assert (
        "params.yaml already has the values of pretrained"
        in run(typer_app, ["recipe", "pretrained"]).output
    )
