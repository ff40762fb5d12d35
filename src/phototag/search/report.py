"""Report page of a study: comparison of the winner, optimism, figures and the best trials."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from phototag.base.files import write_json, write_table
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.figures import figure_style, save_figure
from phototag.pages.html import write_page
from phototag.search import storage
from phototag.search.optimism import Optimism
from phototag.search.storage import Plan
from phototag.search.winner import Comparison

NUM_ROWS = 20  # trials in the table of the page
NUM_PARAMS = 6  # most important hyperparameters in the figures
MIN_TRIALS = 4  # complete trials that the importances require
WIDE = {"slices": (17, 4), "parallel": (12, 5)}  # size in inches
# Optuna writes ticks of logarithmic axes as formulas, and labels reach out of its figures.
STYLE = {"text.parse_math": True, "savefig.bbox": "tight"}


def tabulate_trials(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial.

    Returns:
        Columns trial, state, value (of a pruned trial: that of its last epoch), seconds, reason
        (why it was skipped or failed), and one column per searched key.
    """
    table: pd.DataFrame = study.trials_dataframe(("number", "state", "value", "duration"))
    trials = study.get_trials(deepcopy=False)
    notes = [trial.user_attrs for trial in trials]
    skipped = [storage.SKIPPED in own for own in notes]
    table["state"] = table["state"].mask(pd.Series(skipped), "SKIPPED")
    table["duration"] = table["duration"].dt.total_seconds()
    table["reason"] = [own.get(storage.SKIPPED) or own.get(storage.ERROR, "") for own in notes]
    params = pd.DataFrame([own.get(storage.SETTINGS, {}) for own in notes], dtype=object)
    names = {"number": "trial", "duration": "seconds"}
    return table.rename(columns=names).join(params)


def draw_figures(study: optuna.Study, plan: Plan, folder: Path) -> dict[str, str]:
    """Draw Optuna's plots of the trials and write them as PNG files.

    Args:
        study: Optuna's study.
        plan: The study of search.yaml.
        folder: Folder of the PNG files.

    Returns:
        Name of the figure -> data URI. There is only the history if fewer than `MIN_TRIALS` trials
        are complete, or if all have the same value.
    """
    trials = storage.list_trials(study)
    shown = optuna.create_study(direction=plan.study.direction)
    shown.add_trials(trials)
    images = {}
    with figure_style(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Optuna warns if there are few trials
        for name, draw in _list_plots(shown, f"{plan.study.objective} on val"):
            figure = np.ravel(draw())[0].figure
            if name in WIDE:
                figure.set_size_inches(WIDE[name])
            images[name] = save_figure(figure, folder / f"{name}.png")
    return images


def _list_plots(study: optuna.Study, label: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each figure and the function that draws it."""
    # Imported after phototag.pages.figures, which chooses Matplotlib's backend.
    from optuna.visualization import matplotlib as plots

    yield "history", lambda: plots.plot_optimization_history(study, target_name=label)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS or len({trial.value for trial in complete}) < 2:
        return
    values = pd.DataFrame([trial.params for trial in complete], dtype=object)
    varied = [name for name in get_param_importances(study) if values[name].nunique() > 1]
    params = varied[:NUM_PARAMS]
    yield (
        "importances",
        lambda: plots.plot_param_importances(study, params=params, target_name=label),
    )
    yield "slices", lambda: plots.plot_slice(study, params, target_name=label)
    yield "parallel", lambda: plots.plot_parallel_coordinate(study, params, target_name=label)


def write_report(
    folder: Path,
    plan: Plan,
    study: optuna.Study,
    optimism: Optimism | None,
    comparison: Comparison,
    change: str,
) -> dict[str, float]:
    """Write report.html, trials.csv, comparison.csv, winner.json and the figures.

    Args:
        folder: Folder of the files.
        plan: The study of search.yaml.
        study: Optuna's study.
        optimism: Result of `estimate_optimism`.
        comparison: Result of `compare_on_test`.
        change: Change of params.yaml that applies the winner, as a unified diff.

    Returns:
        Metrics of the study's MLflow run.
    """
    best, table = study.best_trial, tabulate_trials(study)
    write_table(folder / "trials.csv", escape_spreadsheet_cells(table))
    write_table(folder / "comparison.csv", comparison.table)
    winner = {"study": plan.name, "trial": best.number, "value": study.best_value}
    winner |= {"settings": best.user_attrs[storage.SETTINGS]}
    write_json(folder / "winner.json", winner | {"experiment": comparison.experiments[0]})
    figures = draw_figures(study, plan, folder / "figures")
    complete = table[table["state"] == "COMPLETE"]
    rows = complete.sort_values("value", ascending=plan.study.direction == "minimize")
    num_trials = len(storage.list_trials(study))
    write_page(
        folder / "report.html",
        "phototag.search",
        "report.html.j2",
        title=f"Study {plan.name.rpartition('-')[0]}",
        headline=summarize(plan, best, num_trials, optimism, comparison),
        plan=plan,
        num_trials=len(table),
        seconds=table["seconds"].sum(),
        optimism=optimism,
        comparison=comparison,
        comparison_rows=comparison.table.to_dict("records"),
        change=change,
        rows=rows.head(NUM_ROWS).astype(object).fillna("").to_dict("records"),
        keys=list(plan.study.space),
        reasons=table["reason"].replace("", None).value_counts().head(5).to_dict(),
        figures=figures,
        wide=list(WIDE),
    )
    metrics = {"best_score": study.best_value, "trials": float(num_trials)}
    if optimism:
        metrics["optimism"] = optimism.difference
    for row in comparison.table.to_dict("records"):
        if row["seed"] == plan.study.seeds[0]:
            key = f"{comparison.split}_{row['metric']}"
            metrics |= {key: row["winner"], f"{key}_difference": row["difference"]}
    return metrics


def summarize(
    plan: Plan,
    best: FrozenTrial,
    num_trials: int,
    optimism: Optimism | None,
    comparison: Comparison,
) -> list[str]:
    """Return the page's headline: the best trial, its optimism, and the comparison on test."""
    objective, seeds = plan.study.objective, plan.study.seeds
    sentences = [
        f"Trial {best.number} is the best of {num_trials} trials: {objective} {best.value:.4f} on "
        f"val, the mean over the seeds {', '.join(map(str, seeds))}."
    ]
    if optimism:
        worse = "higher" if plan.study.direction == "minimize" else "lower"
        sentences.append(
            f"Because it was chosen as the best of {optimism.trials}, its {objective} on other "
            f"photos is expected to be {optimism.difference:.4f} {worse}."
        )
    f1 = comparison.table.set_index("metric").loc[["f1_micro"]].iloc[0].to_dict()
    verdict = "The difference may be chance."  # also for NaN, if there are too few photos
    if f1["low"] > 0 or f1["high"] < 0:
        verdict = f"The winner is {'better' if f1['low'] > 0 else 'worse'}."
    if comparison.split == "val":
        verdict = "This is no evidence, because the winner was chosen on val (split.test is 0)."
    sentences.append(
        f"On {comparison.split}, the winner has a micro F1 of {f1['winner']:.4f} and the start "
        f"{f1['start']:.4f}: a difference of {f1['difference']:+.4f} (95% interval "
        f"{f1['low']:+.4f} to {f1['high']:+.4f}). {verdict}"
    )
    return sentences
