import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from phototag import experiments, results, tracking
from phototag.cli import app, typer_app
from phototag.errors import InputError


def test_summary_shows_scores_report_and_next_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports/evaluate").mkdir(parents=True)
    (tmp_path / "reports/evaluate/metrics.json").write_text(json.dumps({"f1_micro": 0.71234}))
    decision = {"name": "phototag", "version": 3, "champion": False, "reason": "micro F1 too low"}
    (tmp_path / "reports/register").mkdir()
    (tmp_path / "reports/register/decision.json").write_text(json.dumps(decision))
    shown = CliRunner().invoke(typer_app, ["summary"])
    assert shown.exit_code == 0
    assert "0.7123" in shown.output
    assert "version 3, challenger (micro F1 too low)" in shown.output
    assert str(tmp_path / "reports/evaluate/report.html") in shown.output
    assert "make ui" in shown.output


def test_a_mistake_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["phototag", "summary"])
    with pytest.raises(SystemExit, match="error: there is no evaluation here yet"):
        app()
    assert "Traceback" not in capsys.readouterr().err


def test_import_says_what_to_run_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in/im1.jpg")
    (tmp_path / "in/cat.txt").write_text("1\n")
    shown = CliRunner().invoke(typer_app, ["import", "in"])
    assert shown.exit_code == 0, shown.output
    assert "1 photos in data/raw.zip: cat 1" in shown.output
    assert "dvc add data/raw.zip" in shown.output
    assert "`data.raw: data/raw.zip`" in shown.output


def test_what_ran_is_kept_before_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params_values: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    params_values["data"]["raw"] = "data/mine.zip"
    Path("params.yaml").write_text(yaml.safe_dump(params_values))
    claims = {"speed": {"says": "Fast is better.", "variants": ["plain", "fast"]}}
    variants: dict[str, dict[str, float]] = {"plain": {}, "fast": {"lr": 0.01}}
    values = {"photos": {}, "variants": variants, "claims": claims}
    Path("experiments.yaml").write_text(yaml.safe_dump(values))
    kept: list[str] = []

    def fail(root: Path, runs: Sequence[experiments.Run], jobs: int) -> None:
        raise InputError("1 of 2 experiments failed")

    def collect(root: Path, runs: Sequence[experiments.Run]) -> pd.DataFrame:
        kept.extend(run.name for run in runs)
        return pd.DataFrame()

    monkeypatch.setattr(tracking, "project_root", lambda: tmp_path)
    monkeypatch.setattr(experiments, "run_queued", fail)
    monkeypatch.setattr(experiments, "collect_results", collect)
    monkeypatch.setattr(results, "compare_with_tracked", lambda rows, tracked: "scores")
    shown = CliRunner().invoke(typer_app, ["experiments", "speed", "--seed", "4"])
    assert kept == ["mine-plain-s4", "mine-fast-s4"]
    assert "scores" in shown.output
    assert isinstance(shown.exception, InputError)
