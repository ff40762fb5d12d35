"""Workspaces: copies of the project in which the trials of a study run one after another.

DVC's own queue copies the project for each experiment. A workspace is faster, because many trials
share it. The stages before `train` run only once, and a trial does not start a new process.
"""

import shutil
from pathlib import Path

from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo

from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git
from phototag.base.params import read_values
from phototag.experiments.dvc_tools import run_dvc

FOLDER = Path(".dvc/tmp/workspaces")  # DVC does not search this folder for stages
SYNTHETIC = Path("data/sample")  # synthetic dataset, created by the stage `sample`
UPSTREAM_STAGES = ("normalize-stats", "embed")  # DVC also runs all stages before these


def make_workspace(root: Path, name: str) -> Path:
    """Create a workspace with the files that git tracks, including their uncommitted changes.

    The workspace uses the project's DVC cache. An existing workspace of the same name is replaced.

    Args:
        root: Root of the project.
        name: Name of the workspace.

    Returns:
        Path of the folder in the workspace that corresponds to `root`.

    Raises:
        InputError: The git repository has no commit, or the photos in `data.raw` are not in DVC's
            cache.
    """
    folder = root / FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    commit = ask_git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        raise InputError(f"{root} has no git commit, but experiments require one: run `git commit`")
    top = run_git(root, "rev-parse", "--show-toplevel")
    run_git(root, "clone", "--quiet", "--shared", "--no-checkout", top, str(folder))
    run_git(folder, "checkout", "--quiet", "--detach", commit)
    for key, default in (("user.name", "phototag"), ("user.email", "phototag@localhost")):
        run_git(folder, "config", key, ask_git(root, "config", key) or default)
    # `git stash create` copies uncommitted changes to a commit. The project itself is not changed.
    if changes := run_git(root, "stash", "create"):
        run_git(folder, "restore", f"--source={changes}", "--staged", "--worktree", ".")
    place = folder / run_git(root, "rev-parse", "--show-prefix")
    with Repo(str(root)) as repo:
        cache = repo.cache.local_cache_dir
    run_dvc(place, "cache", "dir", "--local", str(cache))
    run_dvc(place, "checkout", "--with-deps", "--allow-missing", *UPSTREAM_STAGES)
    _check_photos(place)
    # The scores in this file belong to an earlier training. The file's hash remains in dvc.lock,
    # because `dvc exp apply` needs the hashes of all outputs.
    (place / "reports/evaluate/metrics.json").unlink(missing_ok=True)
    return place


def _check_photos(place: Path) -> None:
    """Check that the photos are in the workspace, and that experiments do not commit them."""
    raw = Path(read_values(place / "params.yaml")["data"]["raw"])
    if raw.is_absolute() or raw == SYNTHETIC:
        return
    pointer = f"{raw}.dvc"
    # A DVC experiment is a commit with all files that git does not ignore.
    unignored = (place / pointer).exists() and ask_git(place, "check-ignore", str(raw)) is None
    if unignored or not (place / raw).exists():
        raise InputError(
            f"data.raw: experiments run in a copy of the project, which cannot get {raw} from "
            "DVC's cache: choose one of three fixes: run "
            f"`dvc add {raw}` and `git add {pointer} {raw.with_name('.gitignore')}`; "
            "run `dvc pull` if a DVC remote has the photos; or set data.raw to an absolute path"
        )


def run_upstream(place: Path) -> None:
    """Run all stages before `train` in a workspace, or restore their outputs from DVC's cache.

    Raises:
        InputError: A stage failed.
    """
    run_dvc(place, "repro", *UPSTREAM_STAGES)


def save_experiment(place: Path, name: str) -> None:
    """Save the training results and the model of a workspace as a DVC experiment of the project.

    The experiment is a git commit whose parent is the current commit of the workspace. A git
    reference in DVC's format points to it. An existing experiment of the same name is replaced.

    Args:
        place: Path returned by `make_workspace`.
        name: Name of the experiment.
    """
    with Repo(str(place)) as repo:
        repo.commit("train", force=True)
    commit = run_git(place, "rev-parse", "HEAD")
    run_git(place, "add", "--all", ".")
    tree = run_git(place, "write-tree")
    made = run_git(place, "commit-tree", tree, "-p", commit, "-m", f"phototag: {name}")
    reference = str(ExpRefInfo(commit, name))
    run_git(place, "push", "--quiet", "--force", "origin", f"{made}:{reference}")
