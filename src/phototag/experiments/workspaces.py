"""Workspaces: copies of the repository, in which experiments are made one after the other.

DVC makes a copy for each experiment. Here one serves many: what lies before the training is made
once, and no process starts for an experiment.
"""

import os
import shutil
import subprocess
from pathlib import Path

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo

from phototag.base.errors import InputError
from phototag.experiments.claims import SAMPLE

FOLDER = Path(".dvc/tmp/workspaces")  # DVC looks for no stages there
GROUND = ("normalize-stats", "embed")  # what is made before a training
# Of a training and an evaluation that are not the experiment's own. What dvc.lock has of them
# stays, because `dvc exp apply` wants all outputs of all stages; DVC sees that these are older.
LEFT = ("reports/train/history.csv", "reports/train/training.json", "reports/evaluate/metrics.json")


def make_workspace(root: Path, name: str) -> Path:
    """Copy what git tracks, as it is now, into a folder of this name; return the project in it.

    Data comes from DVC's cache, which is shared. What a workspace of that name held is removed.

    Raises:
        InputError: There is no commit yet, from which experiments could differ; or the user's
            photos are not where experiments find them.
    """
    folder = root / FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        commit = _git(root, "rev-parse", "HEAD")
    except InputError:
        raise InputError(
            f"{root} has no commit: experiments differ from one, so make one"
        ) from None
    top, project = (
        _git(root, "rev-parse", "--show-toplevel"),
        _git(root, "rev-parse", "--show-prefix"),
    )
    _git(root, "clone", "--quiet", "--shared", "--no-checkout", top, str(folder))
    _git(folder, "checkout", "--quiet", "--detach", commit)
    changed = _git(root, "stash", "create")  # what is not committed, which stays as it is
    if changed:
        _git(folder, "restore", f"--source={changed}", "--staged", "--worktree", ".")
    place = folder / project
    _share_cache(root, place)
    _take_data(root, place)
    clear_results(place)
    return place


def _share_cache(root: Path, place: Path) -> None:
    local = root / ".dvc" / "config.local"  # where passwords of remotes are
    if local.exists():
        shutil.copy(local, place / ".dvc")
    with Repo(str(root)) as repo:
        cache = repo.cache.local_cache_dir
    run_dvc(place, "cache", "dir", "--local", str(cache))


def _take_data(root: Path, place: Path) -> None:
    """Take from DVC's cache what lies before a training; `make_ground` makes what is missing."""
    run_dvc(place, "checkout", "--with-deps", "--allow-missing", *GROUND)
    raw = Path(yaml.safe_load((place / "params.yaml").read_text(encoding="utf-8"))["data"]["raw"])
    if raw.is_absolute() or raw == SAMPLE:
        return
    if not (root / raw).resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"data.raw: {raw} is outside the project, and experiments run in copies of that: write "
            "its whole path"
        )
    pointer, ignoring = f"{raw}.dvc", raw.with_name(".gitignore")
    if not (place / raw).exists():
        raise InputError(
            f"data.raw: DVC's cache does not have {raw}: run `dvc pull {pointer}` where a remote "
            f"has it, or else `dvc commit {pointer}`"
            if (place / pointer).exists()
            else f"data.raw: git knows neither {raw} nor {pointer}, from which experiments take "
            f"their photos: run `dvc add {raw}` and `git add {pointer} {ignoring}`"
        )
    # An experiment is all that git does not ignore.
    if (place / pointer).exists() and not _is_ignored(place, raw):
        raise InputError(
            f"data.raw: git would take {raw} into each experiment: run `git add {ignoring}`"
        )


def _is_ignored(place: Path, path: Path) -> bool:
    command = ["git", "-C", str(place), "check-ignore", "--quiet", str(path)]
    return subprocess.run(command, check=False).returncode == 0


def remove_workspaces(root: Path, prefix: str) -> None:
    """Remove the workspaces whose name begins like this."""
    for folder in (root / FOLDER).glob(f"{prefix}*"):
        shutil.rmtree(folder, ignore_errors=True)


def clear_results(place: Path) -> None:
    """Remove what git tracks of the former experiment's results, or of the commit's."""
    for path in LEFT:
        (place / path).unlink(missing_ok=True)


def make_ground(root: Path, place: Path) -> None:
    """Make what a training reads in a workspace, or take it from DVC's cache.

    Raises:
        InputError: A stage failed; its last words.
    """
    run_dvc(place, "repro", *GROUND, variables={"DVC_ROOT": str(root)})


def save_experiment(root: Path, place: Path, name: str, whole: bool) -> None:
    """Make a DVC experiment of a workspace.

    It is a commit upon the workspace's, under a reference of its own, as DVC's own are. Saving one
    of the same name again replaces it.

    Args:
        root: The repository that gets it.
        place: Of `make_workspace`.
        name: Of the experiment.
        whole: Whether the training came to its end; then the model goes into DVC's cache.

    Raises:
        InputError: DVC or git refuses.
    """
    if whole:
        try:
            with Repo(str(place)) as repo:
                repo.commit("train", force=True)
        except DvcException as error:
            raise InputError(f"{name} could not be saved: {error}") from error
    commit = _git(place, "rev-parse", "HEAD")
    _git(place, "add", "--all", ".")
    tree = _git(place, "write-tree")
    made = _git(place, "commit-tree", tree, "-p", commit, "-m", f"phototag: {name}", who=root)
    _git(place, "push", "--quiet", "--force", "origin", f"{made}:{ExpRefInfo(commit, name)}")


def run_dvc(place: Path, *arguments: str, variables: dict[str, str] | None = None) -> None:
    """Run DVC in a project.

    Raises:
        InputError: It failed; its last words.
    """
    done = subprocess.run(
        ["dvc", *arguments],
        cwd=place,
        env=os.environ | (variables or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line.strip() for line in told if "rror: " in line]
        # A stage's own sentence comes first, DVC's that it failed after it.
        raise InputError(f"dvc {arguments[0]} failed: {(errors or told[-1:] or ['?'])[0]}")


def _git(folder: Path, *arguments: str, who: Path | None = None) -> str:
    """Run git; `who` is the repository whose user commits."""
    command = ["git", "-C", str(folder)]
    if who:
        for key, default in (("user.name", "phototag"), ("user.email", "phototag@localhost")):
            asked = subprocess.run(
                ["git", "-C", str(who), "config", key], capture_output=True, text=True, check=False
            )
            command += ["-c", f"{key}={asked.stdout.strip() or default}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()
