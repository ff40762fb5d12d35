"""Report of a study: comparison on test, optimism, figures, and a table of the best trials."""

import warnings
from pathlib import Path

import numpy as np
import optuna
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from phototag.base.files import write_table
from phototag.metrics.selection import describe_evaluated
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.figures import figure_style, save_figure
from phototag.pages.html import write_page
from phototag.search import storage
from phototag.search.storage import Plan
from phototag.search.studies import Study
from phototag.search.winner import Comparison

NUM_ROWS = 20  # maximum number of trials in the table on the page
NUM_PARAMS = 6  # the figures show at most this many hyperparameters, the most important ones
MIN_TRIALS = 10  # importances and slices require this many different objective values
# Optuna formats the tick labels of logarithmic axes as math text. Long labels can be cut off.
STYLE = {"text.parse_math": True, "savefig.bbox": "tight"}
COLUMNS = ("number", "state", "value", "duration", "params", "user_attrs")


def write_report(
    folder: Path,
    plan: Plan,
    study: optuna.Study,
    optimism: float | None,
    comparison: Comparison,
) -> dict[str, float]:
    """Write report.html, trials.csv, comparison.csv and the figures to a folder.

    Returns:
        Metrics to log to the parent run of the study in MLflow.
    """
    trials = storage.list_trials(study)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    complete.sort(key=lambda trial: trial.value, reverse=plan.study.direction == "maximize")
    write_table(folder / "trials.csv", escape_spreadsheet_cells(study.trials_dataframe(COLUMNS)))
    write_table(folder / "comparison.csv", comparison.table)
    rows = comparison.table.to_dict("records")
    write_page(
        folder / "report.html",
        "phototag.search",
        "report.html.j2",
        title=f"Study {plan.name.rpartition('-')[0]}",
        headline=summarize(plan, study.best_trial, len(trials), comparison),
        plan=plan,
        optimism=describe_optimism(plan.study, optimism),
        comparison=comparison,
        where=describe_evaluated(comparison.split),
        rows=rows,
        trials=complete[:NUM_ROWS],
        figures=draw_figures(study, f"{plan.study.objective} on val", folder / "figures"),
        num_complete=len(complete),
        min_trials=MIN_TRIALS,
    )
    metrics = {"best_score": study.best_value, "trials": float(len(trials))}
    if optimism is not None:
        metrics["optimism"] = optimism
    for row in rows:
        if row["seed"] == plan.study.seeds[0]:
            key = f"{comparison.split.replace('-', '_')}_{row['metric']}"
            metrics |= {key: row["winner"], f"{key}_difference": row["difference"]}
    return metrics


def describe_optimism(study: Study, optimism: float | None) -> str:
    """Describe how the winner's objective is expected to change on photos other than val."""
    if optimism is None:
        return "Too few trials are complete, or val has too few groups, to estimate the optimism."
    effect = f"{abs(optimism):.4f} {'worse' if optimism > 0 else 'better'}"
    return f"Expected {study.objective} of the winner on other photos: {effect} than on val."


def draw_figures(study: optuna.Study, label: str, folder: Path) -> dict[str, str]:
    """Draw Optuna's plots of the trials, and write them to PNG files.

    Returns:
        Mapping from the name of each figure to its data URI. With fewer than `MIN_TRIALS`
        different objective values, the optimization history is the only figure.
    """
    # This import must follow phototag.pages.figures, which selects Matplotlib's backend.
    from optuna.visualization import matplotlib as plots

    with figure_style(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Optuna warns if there are few trials
        axes = {"history": plots.plot_optimization_history(study, target_name=label)}
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        if len({trial.value for trial in complete}) >= MIN_TRIALS:
            importances = get_param_importances(study)
            # The importance is 0 for a key that had the same value in all trials.
            params = [name for name, importance in importances.items() if importance > 0]
            options = {"params": params[:NUM_PARAMS], "target_name": label}
            axes["importances"] = plots.plot_param_importances(study, **options)
            axes["slices"] = plots.plot_slice(study, **options)
        return {
            name: save_figure(np.ravel(drawn)[0].figure, folder / f"{name}.png")
            for name, drawn in axes.items()
        }


def summarize(
    plan: Plan, best: FrozenTrial, num_trials: int, comparison: Comparison
) -> tuple[str, str]:
    """Return the two headlines of the page, on the best trial and on the comparison."""
    objective, seeds = plan.study.objective, ", ".join(map(str, plan.study.seeds))
    averaged = f"mean over the seeds {seeds}" if len(plan.study.seeds) > 1 else f"seed {seeds}"
    f1 = comparison.table.set_index("metric").loc[["f1_micro"]].iloc[0].to_dict()
    verdict = "The difference may be due to chance."  # also shown if there are too few photos
    if f1["low"] > 0 or f1["high"] < 0:
        verdict = f"The winner is {'better' if f1['low'] > 0 else 'worse'}."
    if comparison.split != "test":
        verdict = (
            "This is not evidence, because the winner was chosen on these photos (split.test is 0)."
        )
    where = describe_evaluated(comparison.split)
    return (
        f"Trial {best.number} is the best of {num_trials} trials. Its {objective} on val is "
        f"{best.value:.4f} ({averaged}).",
        f"{where[0].upper()}{where[1:]}, the winner has a micro F1 of {f1['winner']:.4f}, and the "
        f"start settings have {f1['start']:.4f}: a difference of {f1['difference']:+.4f} (95% "
        f"interval {f1['low']:+.4f} to {f1['high']:+.4f}). {verdict}",
    )
