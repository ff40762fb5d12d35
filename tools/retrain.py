"""Add photos, train, and let the stage `register` decide: `python -m tools.retrain SOURCE`.

This command is made for cron, which mails what a command prints. It prints nothing unless somebody
has to act; the output of all steps is in .phototag/retrain.log. The arguments are those of
`phototag import`.

Exit status: 0 if everything is up to date, 1 if a step failed, 75 if another run is active.
"""

import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from phototag.base.errors import InputError
from phototag.base.files import exit_on_input_error, project_root, read_json
from phototag.base.git import INPUTS, run_git
from phototag.registry.decision import ADVICE, describe_decision

BUSY = 75  # EX_TEMPFAIL of sysexits.h
TAIL = 15  # number of lines of a failed step that are printed


def main(arguments: list[str]) -> None:
    """Run all steps, unless another run is active."""
    root = project_root()
    folder = root / ".phototag"
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / "retrain.lock", timeout=0):
            retrain(root, arguments, folder / "retrain.log")
    except Timeout:
        sys.exit(BUSY)


def retrain(root: Path, arguments: list[str], log: Path) -> None:
    """Import photos, run the pipeline, and commit both; print a decision that needs a user.

    Raises:
        InputError: A step failed, or files that are not results have uncommitted changes.
    """
    # The first commit below contains all changes of these files.
    if changes := run_git(root, "diff", "--name-only", "HEAD", *INPUTS).splitlines():
        raise InputError(f"uncommitted changes in {root}: commit or discard {', '.join(changes)}")
    with log.open("w", encoding="utf-8") as output:
        run(root, output, "phototag", "import", *arguments, "--add")
        run(root, output, "dvc", "add", "data/raw")
        run(root, output, "git", "add", "data/raw.dvc", "data/.gitignore")
        commit(root, output, "Add photos", *INPUTS)
        # Stages that did not finish in an earlier run are run now, even if no photo was added.
        run(root, output, "dvc", "repro")
        commit(root, output, "Retrain", "--", ".")
    decision = read_json(root / "reports/register/decision.json")
    if any(note.startswith(ADVICE) for note in decision["notes"]):
        print(describe_decision(decision))


def commit(root: Path, output: IO[str], message: str, *files: str) -> None:
    """Commit the changes of tracked files, if there are any; `files` are arguments of git."""
    if run_git(root, "diff", "--name-only", "HEAD", *files):
        run(root, output, "git", "commit", "--message", message, *files)


def run(root: Path, output: IO[str], *command: str) -> None:
    """Run a command and append its output to a file; raise an InputError if it fails."""
    line = shlex.join(command)
    output.write(f"[{datetime.now():%Y-%m-%d %H:%M:%S}] {line}\n")
    output.flush()
    # The PATH of cron does not contain the environment, from which dvc.yaml calls `python`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        lines = Path(output.name).read_text(encoding="utf-8", errors="replace").splitlines()
        print(*lines[-TAIL:], sep="\n", file=sys.stderr)
        raise InputError(f"{line} failed in {root}: see above, and {output.name}")


if __name__ == "__main__":
    with exit_on_input_error():
        main(sys.argv[1:])
