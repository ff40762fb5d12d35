"""Functions of `phototag tune`: run a study, show its status, and apply its best settings."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.experiments.recipes import update_params
from phototag.search import storage
from phototag.search.optimism import Predictions, estimate_optimism
from phototag.search.report import write_report
from phototag.search.storage import Plan
from phototag.search.studies import read_study
from phototag.search.trials import is_finished
from phototag.search.winner import compare_on_test
from phototag.search.workers import run_workers
from phototag.tracking.store import FAILURES, connect
from phototag.tracking.studies import close_parent, open_parent, read_arrays


def tune(root: Path, name: str, jobs: int) -> None:
    """Run trials until the budget of a study is used up, evaluate the winner, and write a report.

    A study that was stopped or killed earlier is resumed. `jobs` trials run in parallel.

    Raises:
        InputError: search.yaml is invalid, MLflow or the database cannot be reached, ten trials in
            a row have failed, or no trial is complete.
    """
    plan, study = open_plan(root, name)
    print(describe_progress(study, plan), flush=True)
    space = plan.study.model_dump(mode="json", include={"space"}, exclude_defaults=True)
    with connect() as store:
        parent = open_parent(store, plan.name, space)
    storage.retry_killed_trials(study, killed=False)
    try:
        # If the study is finished, the workers only check that the photos and labels are the same.
        jobs = 1 if is_finished(study, plan) else jobs
        run_workers(plan.model_copy(update={"parent": parent}), jobs)
        print(describe_progress(study, plan), flush=True)
        if any(trial.state == TrialState.RUNNING for trial in storage.list_trials(study)):
            print("Other processes still run trials: the last process evaluates the winner")
            return
        best = storage.find_best(study)
        print("Evaluating the winner and the settings that the trials started from", flush=True)
        # Two commands that end at the same time would both train these models.
        with storage.lock_study(f"{plan.name}-winner"):
            comparison = compare_on_test(plan, best)
    except KeyboardInterrupt:
        raise InputError(
            f"stopped: {describe_progress(study, plan)}; run the same command again to resume"
        ) from None
    optimism = _estimate_optimism(plan, storage.list_trials(study))
    folder = root / "reports" / "tune" / name
    metrics = write_report(folder, plan, study, optimism, comparison)
    with connect() as store:
        close_parent(store, parent, metrics, folder, comparison.experiments)
    print(f"winner: trial {best.number}, experiment {comparison.experiments[0]}")
    print(comparison.table.to_string(index=False, float_format="{:.4f}".format))
    if optimism is not None:
        print(f"optimism of the winner's {plan.study.objective} on val: {optimism:+.4f}")
    print(f"Open {folder / 'report.html'}")


def open_plan(root: Path, name: str) -> tuple[Plan, optuna.Study]:
    """Read a study from search.yaml, check it against params.yaml, and open it in the database.

    The plan has the values that the searched keys had before the first trial. In params.yaml,
    `phototag tune --apply` may have changed them since then.

    Raises:
        InputError: search.yaml, recipes.yaml or params.yaml is invalid, or the database cannot be
            used.
    """
    study, base = read_study(root, name)
    plan = Plan(name=storage.name_study(name, study, base), study=study, base=base, root=root)
    opened = storage.open_study(plan)
    if storage.START not in opened.user_attrs:
        opened.set_user_attr(storage.START, {key: flatten(base)[key] for key in study.space})
    base = apply_overrides(base, opened.user_attrs[storage.START])
    return plan.model_copy(update={"base": base}), opened


def _estimate_optimism(plan: Plan, trials: Sequence[FrozenTrial]) -> float | None:
    """Estimate the optimism from all complete trials whose predictions are in MLflow."""
    read = []
    with connect() as store:
        for trial in trials:
            if trial.state == TrialState.COMPLETE:
                keys = [f"{storage.RESULT} {seed}" for seed in plan.study.seeds]
                runs = [trial.user_attrs[key]["run"] for key in keys]
                with suppress(*FAILURES):  # the runs may be in the MLflow store of another machine
                    read.append([Predictions(**read_arrays(store, run)) for run in runs])
    return estimate_optimism(read, plan.study.objective, plan.study.seed)


def apply_winner(root: Path, name: str) -> str:
    """Write the best trial's params except `seed` into params.yaml; return a diff of the file.

    Raises:
        InputError: The study has no complete trial.
    """
    plan, study = open_plan(root, name)
    settings = storage.find_best(study).user_attrs[storage.SETTINGS]
    values = flatten(apply_overrides(plan.base, settings))
    del values["seed"]
    return update_params(root / "params.yaml", values)


def describe_status(root: Path, name: str) -> str:
    """Return the progress of a study and the settings of its best trial."""
    plan, study = open_plan(root, name)
    lines = [describe_progress(study, plan)]
    with suppress(InputError):
        settings = storage.find_best(study).user_attrs[storage.SETTINGS]
        lines += [f"  {key}: {value}" for key, value in settings.items()]
    return "\n".join(lines)


def describe_progress(study: optuna.Study, plan: Plan) -> str:
    """Return one line with the number of trials in each state and the best objective so far."""
    trials = storage.list_trials(study)
    counts = Counter(trial.state.name.lower() for trial in trials)
    parts = ", ".join(f"{count} {state}" for state, count in counts.items())
    text = f"{plan.name}: {len(trials)} of {plan.study.trials} trials ({parts or 'none yet'})"
    with suppress(InputError):
        best = storage.find_best(study)
        text += f", best {plan.study.objective} {best.value:.4f} in trial {best.number}"
    return text
