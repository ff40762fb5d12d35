import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.cli import typer_app
from phototag.experiments.recipes import (
    FILE,
    describe_recipes,
    missing_packages,
    read_recipes,
    recipe_params,
    update_params,
)
from phototag.schema.params import read_all_params
from tests.conftest import SHIPPED_PARAMS

REPOSITORY = SHIPPED_PARAMS.parent
SHIPPED = read_recipes(REPOSITORY / FILE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHIPPED_PARAMS, tmp_path / "params.yaml"))


def apply(path: Path, name: str) -> str:
    return update_params(path, recipe_params(SHIPPED, name))


def test_the_base_is_params_yaml_and_has_all_that_a_variant_changes() -> None:
    shipped = flatten(yaml.safe_load(SHIPPED_PARAMS.read_text()))
    base = dict(flatten(SHIPPED.base))
    assert base == {key: shipped[key] for key in base}
    for name in SHIPPED.variants:
        assert set(dict(flatten(SHIPPED.variants[name]))) <= set(base), name
    for recipe in SHIPPED.recipes.values():
        assert set(recipe.model_extra or {}) <= set(base)


@pytest.mark.parametrize("name", SHIPPED.recipes)
def test_a_recipe_is_the_same_whatever_was_there(path: Path, name: str) -> None:
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


def test_what_is_the_users_own_stays_and_the_rest_is_shown(path: Path) -> None:
    text = path.read_text().replace("raw: data/sample ", "raw: 'my photos.zip' # mine\n ")
    text = text.replace("seed: 0", "seed: 12").replace("rotate: 0", "rotate: 10")
    path.write_text(text)
    change = apply(path, "phototag")
    now, lines = path.read_text(), [line for line in change.splitlines() if line[:1] in "+-"]
    assert "raw: 'my photos.zip' # mine\n" in now
    assert "seed: 12\n" in now
    # Each line that changed is shown, and only these.
    before, after = set(text.splitlines()), set(now.splitlines())
    assert {line[1:] for line in lines[2:] if line[0] == "-"} == before - after
    assert {line[1:] for line in lines[2:] if line[0] == "+"} == after - before
    assert any(line.startswith("+  rotate: 0 ") for line in lines)
    comments = [line.partition("#")[2] for line in text.splitlines()]
    assert [line.partition("#")[2] for line in now.splitlines() if "#" in line] == [
        comment for comment in comments if comment
    ]


BLOCKS = """\
    # before the first
    - out: 20   # of the first
      kernel: 3  # its kernel
      # within it
      pool: 2
    # between
    - out: 40  # of the second
      kernel: 3  # its kernel, too
  # below the list

  # above linear
  linear:  # of linear
    # above the first
    - 2048   # wide
    # narrower
    - 512  # narrow
  # below linear

"""


@pytest.mark.parametrize("names", [["phototag", "report"], ["pretrained-best", "phototag"]])
def test_comments_in_and_around_lists_stay(path: Path, names: list[str]) -> None:
    text = path.read_text()
    head, tail = text[: text.index("    - {out: 20")], text[text.index("finetune:  ") :]
    text = f"{head}{BLOCKS}{tail}"
    path.write_text(text)
    for name in names:
        apply(path, name)
        before, after = (sorted(re.findall("#.*", each)) for each in (text, path.read_text()))
        assert after == before
        now = dict(flatten(yaml.safe_load(path.read_text())))
        assert all(now[key] == value for key, value in recipe_params(SHIPPED, name).items())
    lines = path.read_text().splitlines()
    conv, linear = (
        next(number for number, line in enumerate(lines) if line.startswith(f"  {key}:"))
        for key in ("conv", "linear")
    )
    assert conv < lines.index("  # below the list") < lines.index("  # above linear") < linear
    assert linear < lines.index("  # below linear")


def test_a_key_that_has_a_default_may_be_missing(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "accumulate:" not in line))
    assert read_all_params(path).train.accumulate == 1
    apply(path, "phototag")
    assert yaml.safe_load(path.read_text())["train"]["accumulate"] == 1


@pytest.mark.parametrize("name", SHIPPED.recipes)
def test_a_comment_between_a_key_and_its_list_stays(path: Path, name: str) -> None:
    lists = "  linear:\n    # hidden layers, the widest first\n    - 2048\n    - 512\n"
    path.write_text(re.sub("(?m)^  linear: .*\n", lists, path.read_text()))
    apply(path, name)
    assert path.read_text().count("# hidden layers, the widest first\n") == 1
    now = dict(flatten(yaml.safe_load(path.read_text())))
    assert all(now[key] == value for key, value in recipe_params(SHIPPED, name).items())


def test_yes_and_no_are_read_as_the_stages_read_them(path: Path) -> None:
    path.write_text(path.read_text().replace("calibrate: false", "calibrate: yes"))
    apply(path, "phototag")
    assert "calibrate: yes" in path.read_text()
    assert read_all_params(path).evaluate.calibrate


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("split:  ", "splt:  ", "split is missing; splt is unknown"),
        ("model:\n", "model: [\n", "not valid YAML"),
        ("model:\n", "models:\n", "model.name is missing"),
        ("seed: 0", "seed: -1", "seed: input should be greater"),
    ],
)
def test_params_that_are_wrong_stay_as_they_are(path: Path, old: str, new: str, told: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))
    before = path.read_bytes()
    with pytest.raises(InputError, match=told):
        apply(path, "phototag")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    with pytest.raises(InputError, match="is missing: run from"):
        apply(path, "phototag")


def test_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe 'best'; it has report, phototag, pretrained"):
        recipe_params(SHIPPED, "best")
    assert describe_recipes(SHIPPED).count("\n") == len(SHIPPED.recipes) - 1
    broken = yaml.safe_load((REPOSITORY / FILE).read_text())
    broken["recipes"]["fast"] = {"says": "It is fast."}
    (tmp_path / FILE).write_text(yaml.safe_dump(broken))
    with pytest.raises(InputError, match="recipe 'fast' is no variant"):
        read_recipes(tmp_path / FILE)


def test_packages_that_are_missing_are_told() -> None:
    settings = {"model.name": "resnet18+resnet34", "model.weights": ["DEFAULT", "no_such_weights"]}
    assert missing_packages(settings) == ["no_such_weights"]
    assert missing_packages(settings | {"model.weights": None}) == []
    for there in ("tomllib", "weights/mine.pth", "mine.safetensors"):
        assert missing_packages(settings | {"model.weights": there}) == []


def test_the_command_lists_and_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(REPOSITORY / FILE, path.parent)
    (path.parent / "dvc.yaml").touch()
    monkeypatch.chdir(path.parent)
    run = CliRunner().invoke
    assert run(typer_app, ["recipe"]).output.startswith("report  ")
    assert path.read_bytes() == SHIPPED_PARAMS.read_bytes()
    told = run(typer_app, ["recipe", "pretrained"])
    assert "+  freeze: true" in told.output
    assert told.output.endswith("Next: dvc repro\n")
    assert "params.yaml is pretrained already" in run(typer_app, ["recipe", "pretrained"]).output
