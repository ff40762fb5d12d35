"""The page on a study: its trials, what mattered, the winner, and how far to believe it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from phototag.base.files import write_json, write_table
from phototag.base.keys import flatten
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.figures import Figure, figure_style, save_figure
from phototag.pages.html import write_page
from phototag.search import charts, journal
from phototag.search.journal import FrozenTrial, Plan, TrialState, optuna
from phototag.search.optimism import Optimism
from phototag.search.winner import Contest

ROWS = 20  # of the table of trials
FEWEST = 4  # trials that a forest of fANOVA can be grown from
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
CAPTIONS = {
    "history": "Each trial's score, and the best so far",
    "importance": "Share of the variance of scores that each key explains",
    "slices": "Scores over the values of each key",
    "parallel": "Each trial as a line through its values",
}
WIDE = ("slices", "parallel")


def tabulate_trials(trials: Sequence[FrozenTrial], study: Any) -> pd.DataFrame:
    """Tabulate trials.

    Args:
        trials: Of Optuna.
        study: Of search.yaml.

    Returns:
        Columns trial, state, score (of a pruned one, the last), ran (epochs), seconds, told (why
        not), and one a searched key; lists as text.
    """
    rows = []
    for trial in trials:
        notes = trial.user_attrs
        settings = notes.get(journal.SETTINGS, {})
        last = trial.intermediate_values.get(trial.last_step or 0)
        results = [notes.get(f"{journal.RESULT} {seed}") for seed in study.seeds]
        epochs = sum(result["epochs"] for result in results if result) or notes.get("epochs")
        state, told = STATES.get(trial.state, "waiting"), notes.get(journal.ERROR, "")
        if journal.INFEASIBLE in notes:
            state, told = "infeasible", notes[journal.INFEASIBLE]
        elif journal.SAME_AS in notes:
            state, told = "repeated", f"as trial {notes[journal.SAME_AS]}"
        rows.append(
            {
                "trial": trial.number,
                "state": state,
                "score": trial.value if trial.value is not None else last,
                "ran": epochs,
                "seconds": notes.get(journal.SECONDS),
                "told": told,
                **{key: _write_value(settings.get(key)) for key in study.space},
            }
        )
    fixed = ["trial", "state", "score", "ran", "seconds", "told"]
    # Whole numbers stay whole where some trials have none.
    table = pd.DataFrame(rows, columns=[*fixed, *study.space], dtype=object)
    return table.astype({"trial": int, "score": float, "seconds": float})


def _write_value(value: Any) -> Any:
    """Write a list on one line: of blocks, what differs between them."""
    if not isinstance(value, list):
        return value
    return json.dumps(value).replace('"', "")


def weigh_keys(trials: Sequence[FrozenTrial], plan: Plan) -> dict[str, float]:
    """Compute how much each key matters, by fANOVA (Hutter et al., 2014).

    Its forest needs every key of every trial. One that was not proposed was as trials start; what a
    shorter list lacks counts as a value of its own.

    Args:
        trials: Of Optuna.
        plan: The study.

    Returns:
        Name of what was proposed -> share of the variance of scores, largest first; nothing of too
        few trials.
    """
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(done) < FEWEST or len({trial.value for trial in done}) < 2:
        return {}
    start = flatten(plan.base)
    names = dict.fromkeys(name for trial in done for name in trial.params)
    columns, kinds = {}, {}
    for name in names:
        # Of several knobs of one key the name ends with a condition.
        values = [trial.params.get(name, start.get(name.partition(" (")[0])) for trial in done]
        if all(isinstance(value, int | float) for value in values) and not any(
            isinstance(value, bool) for value in values
        ):
            low, high = min(values), max(values)
            logarithmic = low > 0 and charts.spans_decades(pd.Series(values))
            kind = optuna.distributions.FloatDistribution(low, high, log=logarithmic)
        else:
            values = [str(value) for value in values]
            kind = optuna.distributions.CategoricalDistribution(sorted(set(values)))
        if len(set(values)) > 1:
            columns[name], kinds[name] = values, kind
    filled = optuna.create_study()
    for number, trial in enumerate(done):
        row = {name: values[number] for name, values in columns.items()}
        made = optuna.trial.create_trial(params=row, distributions=kinds, value=trial.value)
        filled.add_trial(made)
    if not columns:
        return {}
    evaluator = FanovaImportanceEvaluator(seed=plan.study.seed)
    found = get_param_importances(filled, evaluator=evaluator)
    return {name: share for name, share in found.items() if not math.isnan(share)}


def draw_figures(
    table: pd.DataFrame, importance: Mapping[str, float], plan: Plan, folder: Path
) -> dict[str, str]:
    """Draw all figures and write them as PNG files; returns name -> data URI."""
    study = plan.study
    done = table[table["state"] == "complete"]
    # Those that matter first; what never varied says nothing.
    weights = dict.fromkeys(study.space, 0.0)
    for name, share in importance.items():
        weights[next(key for key in weights if name.startswith(key))] += share
    order = sorted(weights, key=lambda key: -weights[key])
    keys = [key for key in order if done[key].map(str).nunique() > 1][: charts.SHOWN]
    figures: dict[str, Figure] = {}
    with figure_style():
        figures["history"] = charts.draw_history(table, study.objective, study.rises)
        if importance:
            figures["importance"] = charts.draw_importance(importance)
        if keys and len(done) > 1:
            figures["slices"] = charts.draw_slices(table, keys, study.objective)
            figures["parallel"] = charts.draw_parallel(table, keys, study.objective, study.rises)
        return {
            name: save_figure(figures[name], folder / f"{name}.png")
            for name in CAPTIONS
            if name in figures
        }


def write_report(
    folder: Path,
    plan: Plan,
    study: "optuna.Study",
    best: FrozenTrial,
    optimism: Optimism | None,
    contest: Contest,
    change: str,
) -> dict[str, float]:
    """Write report.html, trials.csv, contest.csv, winner.json and figures; return its figures.

    Args:
        folder: Where they go.
        plan: The study.
        study: Of Optuna.
        best: The winner.
        optimism: Of `estimate_optimism`.
        contest: Of `hold_contest`.
        change: To params.yaml, as a unified diff.
    """
    trials = study.get_trials(deepcopy=False)
    table, importance = tabulate_trials(trials, plan.study), weigh_keys(trials, plan)
    write_table(folder / "trials.csv", escape_spreadsheet_cells(table))
    write_table(folder / "contest.csv", contest.table)
    write_json(
        folder / "winner.json",
        {"study": plan.name, "trial": best.number, "score": best.value}
        | {"settings": best.user_attrs[journal.SETTINGS], "experiment": contest.experiment},
    )
    figures = draw_figures(table, importance, plan, folder / "figures")
    counts = {str(state): int(n) for state, n in table["state"].value_counts().items()}
    done = table[table["state"] == "complete"]
    write_page(
        folder / "report.html",
        "phototag.search",
        "report.html.j2",
        title=f"What did the study {plan.name.rpartition('-')[0]} find?",
        headline=summarize(plan, best, counts, optimism, contest),
        plan=plan,
        counts=counts,
        optimism=optimism,
        contest=contest.table.to_dict("records"),
        judged=contest.judged,
        several=len(plan.study.seeds) > 1,
        winners=contest.winners,
        change=change,
        rows=done.sort_values("score", ascending=not plan.study.rises)
        .head(ROWS)
        .astype(object)
        .fillna("")
        .to_dict("records"),
        keys=list(plan.study.space),
        told=table[(table["told"] != "") & (table["state"] != "repeated")]["told"]
        .value_counts()
        .head(5)
        .to_dict(),
        seconds=table["seconds"].sum(),
        figures={name: (image, CAPTIONS[name], name in WIDE) for name, image in figures.items()},
    )
    first = contest.table[contest.table["seed"] == plan.study.seeds[0]].set_index("metric")
    found = {"best_score": journal.score_of(best), "trials": float(len(table))}
    if optimism:
        found["optimism"] = optimism.difference
    for metric, row in first.iterrows():
        key = f"{contest.judged}_{metric}"
        found |= {key: row["winner"], f"{key}_difference": row["difference"]}
    return found


def summarize(
    plan: Plan,
    best: FrozenTrial,
    counts: Mapping[str, int],
    optimism: Optimism | None,
    contest: Contest,
) -> list[str]:
    """Say in three sentences what came out, how far to believe it, and what test says."""
    study = plan.study
    told = [
        f"Of {sum(counts.values())} trials "
        f"({', '.join(f'{count} {state}' for state, count in counts.items())}) number "
        f"{best.number} is the best: {study.objective} {journal.score_of(best):.4f} on val"
        + (f", the mean of {len(study.seeds)} seeds." if len(study.seeds) > 1 else ".")
    ]
    if optimism:
        worse = "lower" if study.rises else "higher"
        told.append(
            f"The best of {optimism.trials} is the best partly by luck: on photos that had no "
            f"part in choosing it, {study.objective} is expected to be "
            f"{optimism.difference:.4f} {worse}."
        )
    first = contest.table[contest.table["seed"] == study.seeds[0]].set_index("metric")
    f1 = first.loc["f1_micro"].to_dict()
    if math.isnan(f1["low"]):
        verdict = "these are too few photos to tell them apart"
    elif f1["low"] > 0:
        verdict = "the winner is better"
    elif f1["high"] < 0:
        verdict = "the winner is WORSE"
    else:
        verdict = "which may be chance: nothing says that the search has gained anything"
    spread = (
        "" if math.isnan(f1["low"]) else f" (95% interval {f1['low']:+.4f} to {f1['high']:+.4f})"
    )
    if contest.judged == "test":
        place = "On test, looked at once,"
    else:
        place, verdict = "On val, by which it was chosen,", "which proves nothing: split.test is 0"
    told.append(
        f"{place} micro F1 is {f1['winner']:.4f} where the settings that trials "
        f"started from have {f1['start']:.4f}: {f1['difference']:+.4f}{spread}, {verdict}."
    )
    return told
