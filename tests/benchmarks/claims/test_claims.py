from pathlib import Path

import pytest

from benchmarks.claims.claims import (
    Experiments,
    apply_overrides,
    describe_claims,
    plan_runs,
    read_experiments,
)
from phototag.base.errors import InputError
from phototag.schema.params import Params
from tests.benchmarks.claims.files import write_experiments
from tests.projects import ROOT

SHIPPED = ROOT / "experiments.yaml"


def test_every_shipped_variant_is_valid_params(shipped_params: Params) -> None:
    experiments = read_experiments(SHIPPED)
    claims = list(experiments.claims)
    planned = plan_runs(experiments, claims, None, [], [0])
    assert {run.variant for run in planned} == set(experiments.variants)
    for run in planned:
        Params.model_validate(apply_overrides(shipped_params.model_dump(), run.overrides))


def test_runs_are_planned_seed_by_seed(tmp_path: Path) -> None:
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
    (drawn,) = plan_runs(experiments, ["speed"], None, ["fast"], [7])
    assert drawn.name == "drawn-fast-s7"
    assert "data.raw" not in drawn.overrides
    # Photos that params.yaml names are never called drawn.
    (own,) = plan_runs(experiments, ["speed"], None, ["fast"], [7], "data/mine.zip")
    assert own.name == "mine-fast-s7"
    assert "data.raw" not in own.overrides


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"claims": {"a": {"statement": "", "variants": ["plain", "slow"]}}}, "names 'slow'"),
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
def test_mistakes_in_the_file_are_named(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=rf"experiments\.yaml: .*{told}"):
        read_experiments(write_experiments(tmp_path / "experiments.yaml", **changes))


def test_unknown_names_are_told_with_the_known_ones(tmp_path: Path) -> None:
    experiments: Experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    with pytest.raises(InputError, match="no 'depth'; it has speed"):
        plan_runs(experiments, ["depth"], None, [], [0])
    with pytest.raises(InputError, match="no variant 'slow', but plain, fast"):
        plan_runs(experiments, ["speed"], None, ["slow"], [0])
    with pytest.raises(InputError, match="no photos there"):
        plan_runs(experiments, ["speed"], tmp_path / "none.zip", [], [0])
    with pytest.raises(InputError, match="missing"):
        read_experiments(tmp_path / "none.yaml")


def test_claims_are_told_with_their_variants(tmp_path: Path) -> None:
    experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    assert describe_claims(experiments) == "speed  Fast is better.\n       plain, fast"
