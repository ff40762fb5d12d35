"""The repository's own pipeline, in git repositories of the tests' own."""

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
# Where the point is not learning.
SMALL = {"epochs": "1", "num_images": "60", "resamples": "50"}


class Project:
    """A git repository with the working tree, and what runs in it.

    Args:
        folder: Where it is.
        warm: Whether its stages may fork from a process that has PyTorch and MLflow imported.
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
        """Run a command that must end well, and return what it printed."""
        if command[0] == "phototag":  # whose imports take seconds
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
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", message)

    def clone(self, folder: Path, cache: bool = False) -> "Project":
        """Clone what git tracks; with DVC's cache too, the results are there as well."""
        self("git", "clone", "-q", ".", str(folder))
        made = Project(folder)
        if cache:
            shutil.copytree(self.folder / ".dvc/cache", folder / ".dvc/cache")
            made("dvc", "checkout", "-q")
        return made


def make_project(folder: Path, **changes: str) -> Project:
    """Copy the working tree into a git repository of its own, with small params.

    Args:
        folder: Where.
        changes: Other params, by the key's last name.
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
    # Of so few photos, workers take longer to start than to decode.
    (folder / "params.yaml").write_text(params.replace("backend: loky", "backend: sequential"))
    # The claims' own number of drawn photos and of epochs, which are large.
    claims = (folder / "experiments.yaml").read_text()
    for old, new in (
        ("  drawn: .*", "  drawn: {}"),
        ("  epochs: .*", f"  epochs: {SMALL['epochs']}"),
    ):
        claims, found = re.subn(f"(?m)^{old}$", new, claims, count=1)
        assert found == 1, f"experiments.yaml has no line {old}"
    (folder / "experiments.yaml").write_text(claims)
    project = Project(folder)
    project("git", "init", "-q", "-b", "main")
    project.commit("start")
    return project
