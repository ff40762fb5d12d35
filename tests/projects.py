"""The repository's own pipeline, in a git repository of a test's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import yaml

ROOT = Path(__file__).parents[1]


class Project:
    """A git repository with the working tree, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "test", f"GIT_{role}_EMAIL": "test"}
        self.environment = environment | {"DVC_NO_ANALYTICS": "1"}

    def __call__(self, *command: str) -> str:
        """Run a command that must end well, and return what it printed."""
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


def make_project(folder: Path) -> Project:
    """Copy the working tree into a git repository of its own, with small params."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listed.split("\0")):
        result = name == "dvc.lock" or (name.startswith("reports/") and not name.endswith("ignore"))
        if (ROOT / name).is_file() and not result:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    values = yaml.safe_load(params)
    for key, value in (("epochs", 1), ("num_images", 90)):
        old = values.get(key, values["sample"].get(key))
        params = params.replace(f"{key}: {old}", f"{key}: {value}")
    (folder / "params.yaml").write_text(params)
    project = Project(folder)
    project("git", "init", "-q", "-b", "main")
    project("git", "add", "-A")
    project("git", "commit", "-q", "-m", "start")
    return project
