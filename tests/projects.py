"""Copies of this repository in which tests run the pipeline."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.forks import run_forked
from tests.servers import WITHOUT_JOBS
from tests.warm import warm_python

ROOT = Path(__file__).parents[1]
# Small values for tests that do not depend on what the model learns.
SMALL = {"epochs": "1", "num_images": "60", "resamples": "50"}


class Project:
    """A git repository with a copy of the project, and commands that run in it.

    Args:
        folder: Folder of the repository.
        warm: Whether stages are forked from a process that has imported PyTorch and MLflow.
    """

    def __init__(self, folder: Path, warm: bool = True) -> None:
        self.folder = folder
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
        places = [str(Path(sys.executable).parent), environment["PATH"]]
        if warm and sys.platform == "linux":
            places.insert(0, str(warm_python().parent))
        environment["PATH"] = os.pathsep.join(places)
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "test", f"GIT_{role}_EMAIL": "test"}
        self.environment = environment | {"DVC_NO_ANALYTICS": "1", **WITHOUT_JOBS}

    def __call__(self, *command: str) -> str:
        """Run a command that must succeed, and return its standard output."""
        if command[0] == "phototag":
            code, out, err = run_forked(command[1:], folder=self.folder, variables=self.environment)
            assert code == 0, f"{command}\n{out.decode()[-3000:]}\n{err.decode()[-3000:]}"
            return out.decode()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def start(
        self, *command: str, stdout: int | IO[str] = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a command in a new process group."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def commit(self, message: str) -> None:
        """Commit all files that git does not ignore."""
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", message)

    def clone(self, folder: Path, cache: bool = False) -> "Project":
        """Clone the git repository, with `cache` also DVC's cache and the results in it."""
        self("git", "clone", "-q", ".", str(folder))
        made = Project(folder)
        if cache:
            shutil.copytree(self.folder / ".dvc/cache", folder / ".dvc/cache")
            made("dvc", "checkout", "-q")
        return made


def make_project(folder: Path, **changes: str) -> Project:
    """Copy the working tree into a new git repository with small params.

    Args:
        folder: Folder of the new repository.
        changes: Other params, by the last part of the dotted key.
    """
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listed.split("\0")):
        result = name == "dvc.lock" or (name.startswith("reports/") and not name.endswith("ignore"))
        if (ROOT / name).is_file() and not result:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    for key, value in (SMALL | changes).items():
        params, found = re.subn(rf"(?m)^(\s*{key}: )[^\s#]+", rf"\g<1>{value}", params)
        assert found == 1, f"params.yaml has {found} lines of {key}"
    # For so few photos, starting workers takes longer than decoding.
    (folder / "params.yaml").write_text(params.replace("backend: loky", "backend: sequential"))
    # The claims and recipes set many synthetic images and epochs, for which a test has no time.
    for name, old, new in (
        ("benchmarks/claims/experiments.yaml", "  synthetic: .*", "  synthetic: {}"),
        ("recipes.yaml", "  epochs: .*", f"  epochs: {SMALL['epochs']}"),
    ):
        text, found = re.subn(f"(?m)^{old}$", new, (folder / name).read_text(), count=1)
        assert found == 1, f"{name} has no line {old}"
        (folder / name).write_text(text)
    project = Project(folder)
    project("git", "init", "-q", "-b", "main")
    project.commit("start")
    return project
