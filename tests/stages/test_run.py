"""Start and end of a stage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import SHIPPED_PARAMS
from tests.projects import ROOT

STAGE = """
import sys
sys.path.insert(0, {root!r})
from stages import run
def main():
    print("started", flush=True)
    sys.stdin.read()
run(main)
"""
VARIABLES = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}


def start_as_dvc(script: Path) -> subprocess.Popen[bytes]:
    """Start a script in a shell that has the role of DVC, and wait until it prints `started`."""
    # DVC runs the stage in an inner shell. `wait` and `true` keep the shells from replacing
    # themselves by the stage.
    stage = f"{sys.executable} {script}; true"
    repro = subprocess.Popen(
        ["sh", "-c", f"exec 3<&0; DVC_STAGE=train sh -c '{stage}' <&3 & wait"],
        cwd=script.parent,
        env=VARIABLES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert repro.stdout
    assert repro.stdout.readline() == b"started\n"
    return repro


def test_orphan_of_a_killed_repro_ends_before_the_next_stage_starts(tmp_path: Path) -> None:
    shutil.copy(SHIPPED_PARAMS, tmp_path)
    script = tmp_path / "train.py"
    script.write_text(STAGE.format(root=str(ROOT)))
    repro, pipe = start_as_dvc(script), subprocess.PIPE
    following = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, env=VARIABLES, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert following.stderr
    assert b"which runs the same stage in this folder" in following.stderr.readline()
    repro.kill()
    assert repro.stdout
    assert repro.stdout.read() == b""  # the read returns when the orphan has ended
    assert following.communicate() == (b"started\n", b"")
    assert repro.wait() < 0 == following.returncode


def test_orphan_of_a_killed_repro_ends_during_its_imports(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(STAGE.format(root=str(ROOT)).replace("run(main)", "main()"))
    repro = start_as_dvc(script)
    repro.kill()
    assert repro.stdout
    assert repro.stdout.read() == b""  # the standard input of the orphan is still open
    repro.communicate()


def test_invalid_params_are_reported_before_pytorch_is_imported(tmp_path: Path) -> None:
    params = SHIPPED_PARAMS.read_text(encoding="utf-8").replace("\nlr:", "\nlearning_rate:")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    (tmp_path / "src").symlink_to(ROOT / "src")
    for name in ("torch", "mlflow", "pandas"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    for stage in ("train", "evaluate"):
        command = [sys.executable, "-m", f"stages.{stage}"]
        done = subprocess.run(command, cwd=tmp_path, env=VARIABLES, capture_output=True, text=True)
        assert done.stderr.startswith("error: params.yaml: lr is missing; learning_rate is unknown")
