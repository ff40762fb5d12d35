import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phototag.cli import app, typer_app


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


def test_summary_tells_figures_that_git_has_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = tmp_path / "reports/evaluate/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"loss": 0.1, "f1_micro": 0.71234}))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "results"]):
        subprocess.run([*git, *arguments], check=True)
    assert "in git" not in CliRunner().invoke(typer_app, ["summary"]).output
    metrics.write_text(json.dumps({"loss": 0.1, "f1_micro": 0.75}))
    shown = CliRunner().invoke(typer_app, ["summary"]).output
    assert "f1_micro  0.7500   (in git: 0.7123)" in shown
    assert "loss      0.1000\n" in shown
    assert "git restore dvc.lock reports" in shown


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
