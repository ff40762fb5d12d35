from pathlib import Path

import pytest

from benchmarks.claims.claims import (
    Experiments,
    describe_claims,
    plan_runs,
    read_experiments,
)
from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.schema.params import Params
from phototag.tracking.recipes import FILE, read_recipes
from tests.benchmarks.claims.files import write_experiments
from tests.projects import ROOT


def test_variants_named_like_a_recipe_have_its_params() -> None:
    variants, recipes = read_experiments().variants, read_recipes(ROOT / FILE).recipes
    for name in variants.keys() & recipes.keys():
        # A set of photos decides the number of epochs and the photo size of its runs.
        recipe = flatten(recipes[name].params) | {"epochs": 0, "resize.size": 0}
        variant = flatten(variants[name]) | {"epochs": 0, "resize.size": 0}
        zeros = {key: value for key, value in variant.items() if key not in recipe}
        assert variant == recipe | zeros, name
        assert not any(zeros.values()), name


def test_every_variant_is_valid_params(shipped_params: Params) -> None:
    experiments = read_experiments()
    claims = list(experiments.claims)
    planned = plan_runs(experiments, claims, None, [], [0])
    assert {run.variant for run in planned} == set(experiments.variants)
    # Values in params.yaml that a run did not override would change its result.
    trained = flatten(shipped_params.train_settings()).keys() | {"resize.size"}
    for run in planned:
        assert trained <= run.overrides.keys(), run.name
        Params.model_validate(apply_overrides(shipped_params.model_dump(), run.overrides))


def test_plan_runs_lists_all_variants_seed_by_seed(tmp_path: Path) -> None:
    experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    photos = tmp_path / "few.zip"
    photos.touch()
    planned = plan_runs(experiments, ["speed"], photos, [], [0, 1])
    assert [run.name for run in planned] == [
        "few-plain-s0",
        "few-fast-s0",
        "few-plain-s1",
        "few-fast-s1",
    ]
    data = {"data.raw": str(photos), "epochs": 3}
    assert planned[0].overrides == {"seed": 0, **data}
    assert planned[3].overrides == {"seed": 1, **data, "lr": 0.01, "model.conv": [{"out": 4}]}
    (synthetic,) = plan_runs(experiments, ["speed"], None, ["fast"], [7])
    assert synthetic.name == "synthetic-fast-s7"
    assert "data.raw" not in synthetic.overrides
    # Only runs on the synthetic dataset are named synthetic.
    (own,) = plan_runs(experiments, ["speed"], None, ["fast"], [7], "data/mine.zip")
    assert own.name == "mine-fast-s7"
    assert "data.raw" not in own.overrides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"claims": {"a": {"statement": "", "variants": ["plain", "slow"]}}},
            "lists the unknown variant 'slow'",
        ),
        (
            {
                "claims": {
                    "a": {"statement": "", "variants": ["plain"], "expect": {"fast": "worse"}}
                }
            },
            "expects 'fast'",
        ),
        (
            {"claims": {"a": {"statement": "", "variants": ["plain"], "expects": {}}}},
            "claims.a.expects",
        ),
        ({"other": {}}, "other"),
    ],
)
def test_errors_in_experiments_yaml_name_the_key(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=rf"experiments\.yaml: .*{message}"):
        read_experiments(write_experiments(tmp_path / "experiments.yaml", **changes))


def test_plan_runs_refuses_unknown_names(tmp_path: Path) -> None:
    experiments: Experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    with pytest.raises(InputError, match="no claim 'depth': choose speed"):
        plan_runs(experiments, ["depth"], None, [], [0])
    with pytest.raises(InputError, match="no variant 'slow': choose plain, fast"):
        plan_runs(experiments, ["speed"], None, ["slow"], [0])
    with pytest.raises(InputError, match="does not exist"):
        plan_runs(experiments, ["speed"], tmp_path / "none.zip", [], [0])
    with pytest.raises(InputError, match="missing"):
        read_experiments(tmp_path / "none.yaml")


def test_describe_claims_lists_variants(tmp_path: Path) -> None:
    experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    assert describe_claims(experiments) == "speed  Fast is better.\n       plain, fast"
