"""Workspaces: copies of the project in which trials and other experiments run one after another.

DVC's own queue copies the project for each experiment, and always runs all queued experiments. A
workspace is faster, because many experiments share it: the stages before `train` run only once.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo

from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.base.git import ask_git, run_git
from phototag.base.params import read_values
from phototag.base.processes import end_children_on_exit
from phototag.experiments.dvc_tools import WORKSPACE, list_experiments, read_data_hash, run_dvc
from phototag.experiments.recipes import update_params
from phototag.tracking.provenance import has_died, name_process

FOLDER = Path(".dvc/tmp/workspaces")  # DVC does not search this folder for stages
SYNTHETIC = Path("data/sample")  # synthetic dataset, created by the stage `sample`
UPSTREAM_STAGES = ("normalize-stats", "embed")  # DVC also runs all stages before these


@contextmanager
def clean_workspaces(root: Path) -> Iterator[None]:
    """Remove workspaces of killed processes before the block, and those of this process after it.

    If the block is interrupted, all child processes end first.
    """
    for folder in (root / FOLDER).glob("*"):
        if has_died(folder.name):  # the process was killed
            shutil.rmtree(folder, ignore_errors=True)
    try:
        with end_children_on_exit():
            yield
    finally:
        shutil.rmtree(root / FOLDER / name_process(), ignore_errors=True)


def make_workspace(root: Path, number: int) -> Path:
    """Create a workspace with the files that git tracks, including their uncommitted changes.

    The workspace is a git clone that uses the project's DVC cache. An existing workspace of this
    process with the same number is replaced. The function returns the folder that corresponds to
    `root`.

    Raises:
        InputError: The project has no git commit or has merge conflicts, or DVC's cache does not
            have the photos in `data.raw`.
    """
    folder = root / FOLDER / name_process() / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    commit = ask_git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        raise InputError(f"{root} has no git commit: run `git init` if necessary, and `git commit`")
    # `git stash create` fails without a message if git's index is older than an unchanged file.
    run_git(root, "add", "--refresh", ":/")
    # It copies uncommitted changes to a commit. The project itself is not changed.
    changes = run_git(root, "stash", "create")
    top = run_git(root, "rev-parse", "--show-toplevel")
    run_git(root, "clone", "--quiet", "--shared", "--no-checkout", top, str(folder))
    # git ignores --shared if the project is a shallow clone, and would not copy `changes`.
    objects = Path(root, run_git(root, "rev-parse", "--git-path", "objects")).resolve()
    write_text(folder / ".git/objects/info/alternates", f"{objects}\n")
    run_git(folder, "checkout", "--quiet", "--detach", commit)
    for key, default in (("user.name", "phototag"), ("user.email", "phototag@localhost")):
        run_git(folder, "config", key, ask_git(root, "config", key) or default)
    if changes:
        run_git(folder, "restore", f"--source={changes}", "--staged", "--worktree", ".")
    place = folder / run_git(root, "rev-parse", "--show-prefix")
    _share_cache(root, place)
    run_dvc(place, "checkout", "--with-deps", "--allow-missing", *UPSTREAM_STAGES)
    _check_photos(place)
    # The scores in this file belong to an earlier training. The file's hash remains in dvc.lock,
    # because `dvc exp apply` needs the hashes of all outputs.
    (place / "reports/evaluate/metrics.json").unlink(missing_ok=True)
    return place


def _share_cache(root: Path, place: Path) -> None:
    """Copy the local DVC settings of the project, and set the path of the project's cache."""
    with (
        Repo(str(root)) as project,
        Repo(str(place)) as workspace,
        workspace.config.edit("local") as settings,
    ):
        settings |= project.config.read("local")
        settings["cache"]["dir"] = project.cache.local_cache_dir


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


def run_upstream(place: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run all stages before `train` in a workspace, or restore their outputs from DVC's cache."""
    run_dvc(place, "repro", *UPSTREAM_STAGES, variables=variables)


def commit_training(place: Path) -> None:
    """Add the outputs of `train` to DVC's cache and dvc.lock; `place` is the current folder."""
    with Repo(str(place)) as repo:
        repo.commit("train", force=True)


def save_experiment(place: Path, name: str) -> None:
    """Save the results and the model of a workspace as a DVC experiment of the project.

    The experiment is a git commit whose parent is the current commit of the workspace. A git
    reference in DVC's format points to it. An existing experiment of the same name is replaced.
    """
    commit = run_git(place, "rev-parse", "HEAD")
    run_git(place, "add", "--all", ".")
    tree = run_git(place, "write-tree")
    made = run_git(place, "commit-tree", tree, "-p", commit, "-m", f"phototag: {name}")
    reference = str(ExpRefInfo(commit, name))
    run_git(place, "push", "--quiet", "--force", "origin", f"{made}:{reference}")


def run_experiments(root: Path, experiments: Mapping[str, Mapping[str, Any]]) -> None:
    """Run all stages up to `evaluate` for each experiment, one experiment after another.

    The models are not registered. An experiment is skipped if it exists and was made with the same
    photos and labels. A training that was killed resumes from its last checkpoint. `experiments`
    maps the name of each experiment to the values that it changes, by dotted keys of params.yaml.

    Raises:
        InputError: An experiment failed. The other experiments have been run.
    """
    finished = dict(list_experiments(root))
    params = (root / "params.yaml").read_text(encoding="utf-8")
    failed = []
    with clean_workspaces(root):
        place = make_workspace(root, 0)
        for name, changes in experiments.items():
            variables = {"DVC_EXP_NAME": name, "DVC_ROOT": str(root)}
            try:
                write_text(place / "params.yaml", params)
                update_params(place / "params.yaml", changes)
                run_upstream(place, variables)
                data = read_data_hash(place, WORKSPACE)
                if name not in finished or read_data_hash(root, finished[name]) != data:
                    run_dvc(place, "repro", "evaluate", variables=variables, show_output=True)
                    save_experiment(place, name)
            except InputError as error:
                failed.append(f"{name}: {error}")
    if failed:
        raise InputError(f"{len(failed)} of {len(experiments)} experiments failed; {failed[0]}")
