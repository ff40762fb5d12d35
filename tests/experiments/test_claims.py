import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import to_hydra_overrides

from phototag import experiments as module
from phototag.errors import InputError
from phototag.experiments import (
    Experiments,
    _to_hydra,
    apply_overrides,
    list_finished,
    plan_runs,
    read_experiments,
)
from phototag.params import Params
from tests.projects import ROOT, make_project

SHIPPED = ROOT / "experiments.yaml"


def write(path: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "photos": {"few": {"epochs": 3}},
        "variants": {"plain": {}, "fast": {"lr": 0.01, "model": {"conv": [{"out": 4}]}}},
        "claims": {"speed": {"says": "Fast is better.", "variants": ["plain", "fast"]}},
    }
    path.write_text(yaml.safe_dump(values | changes))
    return path


def test_every_shipped_variant_is_valid_params(shipped_params: Params) -> None:
    experiments = read_experiments(SHIPPED)
    claims = list(experiments.claims)
    planned = plan_runs(experiments, claims, None, [], [0])
    assert {run.variant for run in planned} == set(experiments.variants)
    for run in planned:
        Params.model_validate(apply_overrides(shipped_params.model_dump(), run.overrides))


def test_runs_are_planned_seed_by_seed(tmp_path: Path) -> None:
    experiments = read_experiments(write(tmp_path / "experiments.yaml"))
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
    "value",
    [
        "data/mine.zip",
        "/home/me/my photos (old), {2}=[x].zip",
        "it's.zip",
        [{"out": 4, "kernel": 3}, {"out": 8}],
        False,
        0.0002,
    ],
)
def test_dvc_reads_values_as_they_are(value: object) -> None:
    (override,) = to_hydra_overrides([f"key={_to_hydra(value)}"])
    assert override.value() == value


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"claims": {"a": {"says": "", "variants": ["plain", "slow"]}}}, "names 'slow'"),
        (
            {"claims": {"a": {"says": "", "variants": ["plain"], "expect": {"fast": "worse"}}}},
            "expects 'fast'",
        ),
        ({"claims": {"a": {"says": "", "variants": ["plain"], "expects": {}}}}, "claims.a.expects"),
        ({"other": {}}, "other"),
    ],
)
def test_mistakes_in_the_file_are_named(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=rf"experiments\.yaml: .*{told}"):
        read_experiments(write(tmp_path / "experiments.yaml", **changes))


def test_unknown_names_are_told_with_the_known_ones(tmp_path: Path) -> None:
    experiments: Experiments = read_experiments(write(tmp_path / "experiments.yaml"))
    with pytest.raises(InputError, match="no 'depth'; it has speed"):
        plan_runs(experiments, ["depth"], None, [], [0])
    with pytest.raises(InputError, match="no variant 'slow', but plain, fast"):
        plan_runs(experiments, ["speed"], None, ["slow"], [0])
    with pytest.raises(InputError, match="no photos there"):
        plan_runs(experiments, ["speed"], tmp_path / "none.zip", [], [0])
    with pytest.raises(InputError, match="missing"):
        read_experiments(tmp_path / "none.yaml")


def test_finished_runs_are_told_by_their_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = read_experiments(write(tmp_path / "experiments.yaml"))
    raws = {
        "few-fast-s2": ("/somewhere/few.zip", 2),
        "drawn-plain-s0": ("data/sample", 0),
        "few-very-fast-s0": ("/somewhere/few.zip", 0),  # a variant that is no more
        "my-own": ("data/sample", 0),
    }
    params = {
        name: yaml.safe_dump({"seed": seed, "data": {"raw": raw}})
        for name, (raw, seed) in raws.items()
    }
    monkeypatch.setattr(module, "list_experiments", lambda root: [(n, n) for n in params])
    monkeypatch.setattr(module, "read_revision", lambda root, revision, path: params[revision])
    found = list_finished(tmp_path, experiments)
    assert [(run.photos, run.variant, run.seed) for run in found] == [
        ("few", "fast", 2),
        ("drawn", "plain", 0),
    ]


@pytest.mark.slow
def test_a_claim_runs_in_dvcs_queue_and_is_written_down(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    for path in ("docs/results/runs.csv", "docs/results/curves.csv", "docs/results.md"):
        (project.folder / path).unlink(missing_ok=True)
    variants = ("--variant", "report", "--variant", "one-linear", "--seed", "0")
    # Left in the queue by an earlier call, with params that are no longer its own.
    project("dvc", "exp", "run", "--queue", "--name", "drawn-report-s0", "-S", "lr=9")
    told = project("phototag", "experiments", "linear-layers", *variants)
    assert "drawn-one-linear-s0" in told

    table = pd.read_csv(project.folder / "docs/results/runs.csv")
    runs = {str(row["variant"]): row for row in table.to_dict("records")}
    curves = pd.read_csv(project.folder / "docs/results/curves.csv")
    assert set(runs) == set(curves["variant"]) == {"report", "one-linear"}
    listed = json.loads(project("dvc", "exp", "show", "--json"))
    shown = {each["name"]: each["revs"][0]["data"] for each in listed[1]["experiments"]}
    for variant, row in runs.items():
        data = shown[f"drawn-{variant}-s0"]
        assert data["params"]["params.yaml"]["data"]["seed"] == 0
        assert data["params"]["params.yaml"]["data"]["lr"] < 1
        scores = data["metrics"]["reports/evaluate/metrics.json"]["data"]
        assert row["test_f1_micro"] == scores["f1_micro"]
        own = curves[curves["variant"] == variant]
        assert round(own["val_loss"].min(), 4) == row["val_loss"]
    assert runs["report"]["num_parameters"] > runs["one-linear"]["num_parameters"]
    assert "one-linear" in (project.folder / "docs/results.md").read_text()

    # What an experiment gave can be written down later.
    (project.folder / "docs/results/runs.csv").unlink()
    project("phototag", "results")
    pd.testing.assert_frame_equal(pd.read_csv(project.folder / "docs/results/runs.csv"), table)

    # All is there already: nothing runs again, and the scores stand beside the tracked ones.
    again = project("phototag", "experiments", "linear-layers", *variants)
    assert f"{runs['report']['val_loss']:.4f}   tracked over 1 seeds" in again
    assert project("dvc", "queue", "status").count("Success") == 2
    assert not project("phototag", "experiments", "linear-layers", *variants, "--missing").strip()
