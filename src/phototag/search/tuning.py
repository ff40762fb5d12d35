"""`phototag tune`: workers that make trials, and what is made of them in the end."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.base.keys import apply_overrides, flatten
from phototag.experiments.recipes import FILE as RECIPES
from phototag.experiments.recipes import read_recipes, recipe_params, update_params
from phototag.experiments.workspaces import FOLDER, make_workspace, remove_workspaces
from phototag.schema.params import read_all_params
from phototag.search import journal
from phototag.search.journal import FrozenTrial, Plan, TrialState, optuna
from phototag.search.optimism import Judged, Optimism, estimate_optimism
from phototag.search.report import write_report
from phototag.search.studies import FILE, check_study, find_study, read_search
from phototag.search.trials import is_spent
from phototag.search.winner import hold_contest
from phototag.tracking.store import FAILURES, connect, describe_failure
from phototag.tracking.studies import close_parent, open_parent, read_arrays
from phototag.training.checkpoint import checkpoint_path

REPORTS = Path("reports/tune")
KEPT = 2 * 2**30  # bytes of pruned trials' states
Tell = Callable[[str], None]


def tune(root: Path, name: str, jobs: int, changes: dict[str, Any], tell: Tell) -> None:
    """Make a study's trials until its budget is spent, then evaluate the winner and report.

    A study that was killed goes on.

    Args:
        root: The repository.
        name: Of the study.
        jobs: Trials at a time.
        changes: To the study, such as its budget.
        tell: Takes what there is to tell.

    Raises:
        InputError: Something in search.yaml is wrong; ten trials in a row failed; no trial came to
            its end.
    """
    plan = make_plan(root, name, changes)
    study = journal.open_study(root, plan.name, plan.study)
    plan = plan.model_copy(update={"base": _fix_base(study, plan)})
    tell(f"{plan.name}: {_tell_progress(study, plan)}")
    plan = plan.model_copy(update={"parent": _open_parent(plan)})
    try:
        # What runs may have been killed.
        if _list_running(study) or not is_spent(study.get_trials(deepcopy=False), plan):
            run_workers(plan, jobs)
    except KeyboardInterrupt:
        raise InputError(
            f"{plan.name} was stopped: {_tell_progress(study, plan)}; the same command goes on"
        ) from None
    finally:
        bound_states(list_states(root, study))
    if running := _list_running(study):
        tell(
            f"{plan.name}: {_tell_progress(study, plan)}; trials of others are at work "
            f"({', '.join(str(trial.number) for trial in running)}): whoever ends last evaluates "
            f"the winner; of a machine that is gone, the same command takes them up "
            f"{journal.SILENCE // 60} minutes after its last sign of life"
        )
        return
    best = journal.pick_best(study.get_trials(deepcopy=False), plan.study)
    if best is None:
        reasons = [t.user_attrs.get(journal.ERROR) for t in study.get_trials(deepcopy=False)]
        last = next((reason for reason in reversed(reasons) if reason), "all were pruned")
        raise InputError(f"{plan.name}: no trial came to its end ({last})")
    judged = "test" if plan.base["split"]["test"] else "val"
    tell(f"{plan.name}: {_tell_progress(study, plan)}; now {judged}, for the winner and the start")
    finish(root, plan, study, best, tell)


def _list_running(study: "optuna.Study") -> list[FrozenTrial]:
    return list(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def make_plan(root: Path, name: str, changes: dict[str, Any]) -> Plan:
    """Read search.yaml, and hold the study against params.yaml.

    Raises:
        InputError: Something in either is wrong.
    """
    study = find_study(read_search(root / FILE), name)
    study = study.model_copy(update=changes)
    read_all_params(root / "params.yaml")
    text = (root / "params.yaml").read_text(encoding="utf-8")
    place = f"{FILE}: studies.{name}"
    settings: dict[str, Any] = {}
    if study.recipe:
        try:
            settings |= recipe_params(read_recipes(root / RECIPES), study.recipe)
        except InputError as error:
            raise InputError(f"{place}.recipe: {error}") from None
    settings |= flatten(study.settings)
    try:
        base = apply_overrides(yaml.safe_load(text), settings)
    except KeyError as error:
        raise InputError(f"{place}.settings: {error} is no key of params.yaml") from None
    check_study(name, study, base)
    return Plan(
        name=journal.name_study(name, study, base),
        study=study,
        base=base,
        text=text,
        root=root,
        began=time.time(),
    )


def _fix_base(study: "optuna.Study", plan: Plan) -> dict[str, Any]:
    """Return the values from which the study's first trial started; those count until its end.

    What is searched may have been changed in params.yaml since, as `--apply` does.
    """
    if journal.BASE not in study.user_attrs:
        study.set_user_attr(journal.BASE, plan.base)
    return _start_of(study, plan)


def _start_of(study: "optuna.Study", plan: Plan) -> dict[str, Any]:
    """Return the values from which the first trial started; the present ones before there is one.

    How models are judged and registered decides nothing of what trials are: it is as by now.
    """
    own = {group: plan.base[group] for group in journal.ASIDE if group in plan.base}
    return dict(study.user_attrs.get(journal.BASE, plan.base)) | own


def _open_parent(plan: Plan) -> str:
    searched = {
        key: str([knob.model_dump(exclude_defaults=True) for knob in knobs])[:500]
        for key, knobs in plan.study.space.items()
    }
    try:
        with connect() as store:
            return open_parent(store, plan.name, searched)
    except FAILURES as error:
        print(f"warning: {describe_failure(error, connect().uri)}; trials go on", file=sys.stderr)
        return ""


def run_workers(plan: Plan, jobs: int) -> None:
    """Run workers, each in a workspace of its own, until the study's budget is spent.

    One that is killed from outside, or by the system for its memory, is started anew.

    Raises:
        InputError: A worker gave up; it has said why.
    """
    for folder in (plan.root / FOLDER).glob("*"):  # of those that were killed
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
    own = f"{os.getpid()}-"
    workers: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for number in range(jobs):
            workers[number] = _start_worker(plan, number, f"{own}{number}", jobs)
        while workers:
            for number, worker in list(workers.items()):
                with suppress(subprocess.TimeoutExpired):
                    code = worker.wait(0.2)
                    del workers[number]
                    if code < 0 or code > 128:
                        workers[number] = _start_worker(plan, number, f"{own}{number}", jobs)
                    elif code:
                        raise InputError(f"{plan.name} was given up; why, is told above")
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.wait()
        remove_workspaces(plan.root, own)


def _start_worker(plan: Plan, number: int, name: str, jobs: int) -> subprocess.Popen[bytes]:
    place = make_workspace(plan.root, name)
    path = place / ".dvc" / "tmp" / "plan.json"
    write_text(path, plan.model_copy(update={"worker": number}).model_dump_json())
    threads = max(1, (psutil.cpu_count(logical=False) or 1) // jobs)
    variables = {"DVC_ROOT": str(plan.root)}
    if jobs > 1:
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    return subprocess.Popen(
        ["python", "-m", "stages.trials", str(path)],
        cwd=place,
        env=os.environ | variables,
        stdin=subprocess.PIPE,  # whose end tells it that this process is gone
    )


def list_states(root: Path, study: "optuna.Study") -> list[Path]:
    """List the states of this project's trials that were pruned, the newest first."""
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    paths = {Path(trial.user_attrs.get(journal.CHECKPOINT, "")) for trial in pruned}
    # Another clone, or another machine, may have the same study.
    own = [path for path in paths if path == checkpoint_path(root, path.stem) and path.exists()]
    return sorted(own, key=lambda path: path.stat().st_mtime, reverse=True)


def bound_states(states: Sequence[Path]) -> None:
    """Remove the oldest states beyond `KEPT`; the newest stays, however large."""
    total = 0
    for number, path in enumerate(states):
        total += path.stat().st_size
        if number and total > KEPT:
            path.unlink(missing_ok=True)


def finish(root: Path, plan: Plan, study: "optuna.Study", best: FrozenTrial, tell: Tell) -> None:
    """Evaluate the winner on test, write the report, and log both in the study's run."""
    contest = hold_contest(root, plan, best)
    optimism = _estimate_optimism(plan, study.get_trials(deepcopy=False))
    settings = winning_settings(plan, best)
    change = update_params(_copy_params(root), settings)
    folder = root / REPORTS / plan.name.rpartition("-")[0]
    found = write_report(folder, plan, study, best, optimism, contest, change)
    try:
        with connect() as store:
            run_id = plan.parent or open_parent(store, plan.name, {})
            close_parent(store, run_id, found, folder, contest.experiments)
    except FAILURES as error:
        print(
            f"warning: {describe_failure(error, connect().uri)}; all is in {folder}",
            file=sys.stderr,
        )
    tell(f"winner: trial {best.number}, as {contest.experiment}")
    for row in contest.table.to_dict("records"):
        tell(
            f"  seed {row['seed']}  {row['metric']:<9}  {row['winner']:.4f}  start "
            f"{row['start']:.4f}  {row['difference']:+.4f} "
            f"({row['low']:+.4f} to {row['high']:+.4f})"
        )
    if optimism:
        tell(f"  optimism of picking the best of {optimism.trials}: {optimism.difference:.4f}")
    tell(f"Open {folder / 'report.html'}")


def _copy_params(root: Path) -> Path:
    """Copy params.yaml aside, to see what would become of it."""
    place = root / ".dvc" / "tmp" / "params.yaml"
    shutil.copy(root / "params.yaml", place)
    return place


def _estimate_optimism(plan: Plan, trials: Sequence[FrozenTrial]) -> Optimism | None:
    """Estimate it from the trials whose answers MLflow has."""
    judged = []
    done = [t for t in trials if t.state == TrialState.COMPLETE and journal.is_own(t)]
    with suppress(*FAILURES), connect() as store:
        for trial in done:
            results = [trial.user_attrs[f"{journal.RESULT} {seed}"] for seed in plan.study.seeds]
            with suppress(*FAILURES):
                judged.append([Judged(**read_arrays(store, result["run"])) for result in results])
    # At another size, other photos may look like copies, and val is not the same.
    same = [
        trial
        for trial in judged
        if all(
            np.array_equal(own.groups, first.groups)
            for own, first in zip(trial, judged[0], strict=True)
        )
    ]
    return estimate_optimism(same, plan.study.objective, plan.study.seed)


def winning_settings(plan: Plan, best: FrozenTrial) -> dict[str, Any]:
    """Return what the winner decides: the recipe, the study's settings, and what was searched.

    Its base has what no trial depends on (how models are judged and registered) as it is by now.
    """
    values = flatten(apply_overrides(plan.base, best.user_attrs[journal.SETTINGS]))
    return {key: value for key, value in values.items() if key != "seed"}


def apply_winner(root: Path, name: str, changes: dict[str, Any]) -> str:
    """Write the best trial's settings into params.yaml; return the difference.

    Raises:
        InputError: There is no trial that came to its end.
    """
    plan, study = _look_up(root, name, changes)
    best = journal.pick_best(study.get_trials(deepcopy=False), plan.study)
    if best is None:
        raise InputError(
            f"{plan.name} has no trial that came to its end: run `phototag tune {name}`"
        )
    return update_params(root / "params.yaml", winning_settings(plan, best))


def _look_up(root: Path, name: str, changes: dict[str, Any]) -> "tuple[Plan, optuna.Study]":
    plan = make_plan(root, name, changes)
    study = journal.open_study(root, plan.name, plan.study)
    return plan.model_copy(update={"base": _start_of(study, plan)}), study


def describe_status(root: Path, name: str, changes: dict[str, Any]) -> str:
    """Tell how far a study is, who works at it, and what room it takes."""
    plan, study = _look_up(root, name, changes)
    lines = [f"{plan.name}: {_tell_progress(study, plan)}"]
    for trial in _list_running(study):
        epoch = f"epoch {trial.last_step}" if trial.last_step else "no epoch yet"
        process = trial.user_attrs.get(journal.PROCESS, "somebody")
        lines.append(f"  trial {trial.number} runs ({process}; {epoch})")
    best = journal.pick_best(study.get_trials(deepcopy=False), plan.study)
    if best:
        for key, value in best.user_attrs[journal.SETTINGS].items():
            lines.append(f"  {key}: {value}")
    room = [list_states(root, study), (root / FOLDER).rglob("*")]
    states, copies = (sum(p.lstat().st_size for p in found if p.is_file()) for found in room)
    lines.append(
        f"  room: {states / 2**20:.0f} MiB of pruned trials' states (at most "
        f"{KEPT / 2**20:.0f}), "
        f"{copies / 2**20:.0f} MiB of workspaces, most of it shared with DVC's cache"
    )
    return "\n".join(lines)


def _tell_progress(study: "optuna.Study", plan: Plan) -> str:
    trials = study.get_trials(deepcopy=False)
    own = [trial for trial in trials if journal.is_own(trial)]
    states = Counter(trial.state for trial in own)
    words = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "running",
    }
    parts = [f"{states[state]} {word}" for state, word in words.items() if states[state]]
    infeasible = sum(journal.INFEASIBLE in trial.user_attrs for trial in trials)
    repeated = sum(journal.SAME_AS in trial.user_attrs for trial in trials)
    parts += [f"{infeasible} infeasible"] * (infeasible > 0)
    parts += [f"{repeated} repeated"] * (repeated > 0)
    best = journal.pick_best(trials, plan.study)
    told = f"{len(own)} of {plan.study.trials} trials"
    if parts:
        told += f" ({', '.join(parts)})"
    if best:
        told += f", best {plan.study.objective} {journal.score_of(best):.4f}, trial {best.number}"
    return told
