"""Workspaces: copies of the project in which the trials of a study run one after the other.

DVC makes one copy per experiment. A workspace serves many experiments: the stages before the
training run once, and no new process starts for an experiment.
"""

import shutil
from pathlib import Path

from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo

from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git
from phototag.base.params import read_values
from phototag.experiments.dvc_tools import run_dvc

FOLDER = Path(".dvc/tmp/workspaces")  # DVC does not look for stages here
SYNTHETIC = Path("data/sample")  # written by the sample stage
UPSTREAM_STAGES = ("normalize-stats", "embed")  # with their dependencies: all stages before train


def make_workspace(root: Path, name: str) -> Path:
    """Copy the files that git tracks, with uncommitted changes, into a new workspace.

    Data comes from DVC's cache, which is shared. An older workspace of the same name is replaced.

    Args:
        root: Root of the project.
        name: Name of the workspace.

    Returns:
        Root of the project in the workspace.

    Raises:
        InputError: The repository has no commit, or the photos of data.raw cannot be copied.
    """
    folder = root / FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    commit = ask_git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        raise InputError(f"{root} has no commit, on which experiments are based: make one")
    top = run_git(root, "rev-parse", "--show-toplevel")
    run_git(root, "clone", "--quiet", "--shared", "--no-checkout", top, str(folder))
    run_git(folder, "checkout", "--quiet", "--detach", commit)
    for key, default in (("user.name", "phototag"), ("user.email", "phototag@localhost")):
        run_git(folder, "config", key, ask_git(root, "config", key) or default)
    # `git stash create` makes a commit of the uncommitted changes and leaves them in place.
    if changes := run_git(root, "stash", "create"):
        run_git(folder, "restore", f"--source={changes}", "--staged", "--worktree", ".")
    place = folder / run_git(root, "rev-parse", "--show-prefix")
    with Repo(str(root)) as repo:
        cache = repo.cache.local_cache_dir
    run_dvc(place, "cache", "dir", "--local", str(cache))
    run_dvc(place, "checkout", "--with-deps", "--allow-missing", *UPSTREAM_STAGES)
    _check_photos(place)
    # These scores belong to another training. dvc.lock keeps their hash, because `dvc exp apply`
    # needs all outputs of all stages.
    (place / "reports/evaluate/metrics.json").unlink(missing_ok=True)
    return place


def _check_photos(place: Path) -> None:
    """Check that the user's photos are in the workspace and stay out of experiments' commits."""
    raw = Path(read_values(place / "params.yaml")["data"]["raw"])
    if raw.is_absolute() or raw == SYNTHETIC:
        return
    pointer = f"{raw}.dvc"
    # An experiment commits every file that git does not ignore.
    unignored = (place / pointer).exists() and ask_git(place, "check-ignore", str(raw)) is None
    if unignored or not (place / raw).exists():
        raise InputError(
            f"data.raw: experiments run in copies of the project and cannot get {raw} from DVC's "
            f"cache: run `dvc add {raw}` and `git add {pointer} {raw.with_name('.gitignore')}`, or "
            "`dvc pull` if a remote has the photos, or set data.raw to an absolute path"
        )


def run_upstream(place: Path) -> None:
    """Run the stages before the training in a workspace, or restore them from DVC's cache.

    Raises:
        InputError: A stage failed.
    """
    run_dvc(place, "repro", *UPSTREAM_STAGES)


def save_experiment(place: Path, name: str) -> None:
    """Save a training in a workspace as a DVC experiment of the project, with its model.

    The experiment is a commit on top of the workspace's commit, under a git reference in DVC's
    format. An older experiment of the same name is replaced.

    Args:
        place: Workspace returned by `make_workspace`.
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
