import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phototag.apps.summary import summarize
from phototag.base.errors import InputError
from phototag.registry.decision import write_decision
from stages import register
from tests.conftest import SHIPPED_PARAMS


def test_experiment_is_registered_only_if_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "my-<try>")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    shutil.copy(SHIPPED_PARAMS, tmp_path / "params.yaml")
    register.main()
    decision = json.loads((tmp_path / "reports/register/decision.json").read_text())
    assert (decision["version"], decision["kind"]) == (None, "experiment")
    page = (tmp_path / "reports/register/report.html").read_text()
    assert "my-&lt;try&gt; is not registered" in page
    assert not (tmp_path / "mlflow.db").exists()

    (tmp_path / "reports/evaluate").mkdir()
    (tmp_path / "reports/evaluate/metrics.json").write_text('{"f1_micro": 0.12345678}')
    output = summarize(tmp_path)
    assert "Registered: no, the experiment my-<try>" in output
    assert "0.1235" in output

    # If requested, the stage reads its inputs.
    text = SHIPPED_PARAMS.read_text().replace("experiments: false", "experiments: true")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        register.main()


def test_page_and_summary_show_the_time_of_the_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    decision = {
        "name": "phototag",
        "version": 4,
        "champion": True,
        "previous_champion": 1,
        "kind": "challenge",
        "reason": "it was <best>",
        "time": "2026-01-02 03:04:05.678901",
    }
    write_decision(tmp_path / "reports/register", decision)
    report = tmp_path / "reports/register/report.html"
    page = report.read_text()
    assert "Version 4 became the champion: it was &lt;best&gt;." in page
    assert "2026-01-02 03:04 UTC" in page
    (tmp_path / "reports/evaluate").mkdir()
    (tmp_path / "reports/evaluate/metrics.json").write_text('{"f1_micro": 0.6}')
    output = summarize(tmp_path)
    assert "cross-validation" not in output
    assert "version 4, champion (it was <best>) on 2026-01-02 03:04 UTC" in output
    assert "`phototag history`" in output
    assert f"Comparison: {report}\n" in output
    (tmp_path / "reports/evaluate/metrics.json").write_text('{"cross_validation_loss": 0.6}')
    assert "Scores by cross-validation: " in summarize(tmp_path)


def test_skipped_registration_imports_neither_pytorch_nor_mlflow(tmp_path: Path) -> None:
    shutil.copy(SHIPPED_PARAMS, tmp_path / "params.yaml")
    output = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from stages import register; register.main();"
            "print({'torch', 'mlflow'} & set(sys.modules))",
        ],
        cwd=tmp_path,
        env=os.environ | {"DVC_EXP_NAME": "my-try", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    *printed, imported = output.stdout.splitlines()
    assert imported == "set()"
    assert printed[0] == "The experiment my-try is not registered."
    assert "git restore params.yaml dvc.lock reports && dvc checkout" in printed[-1]
