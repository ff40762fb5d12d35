"""Markdown tables for the results page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.claims.claims import Experiments
from benchmarks.claims.verdicts import Trial, answer_claim, judge_variants
from phototag.base.keys import flatten
from phototag.pages.escaping import escape_markdown


def tabulate_claims(trials: Sequence[Trial]) -> str:
    """Return the table of claims, with the statement of each claim and whether it holds."""
    rows = []
    for trial in trials:
        count = trial.runs.groupby("variant")["seed"].nunique()
        seeds = "-".join(dict.fromkeys(map(str, (count.min(), count.max()))))
        names = [escape_markdown(name) for name in (trial.name, trial.photos)]
        rows.append([*names, seeds, trial.claim.statement, answer_claim(trial)])
    return _lay_out("| claim | photos | seeds | statement | result |", rows)


def tabulate_variants(trial: Trial, curves: pd.DataFrame, epoch_times: Mapping[str, float]) -> str:
    """Return the table that compares the variants of a claim.

    Args:
        trial: Trial returned by `list_trials`.
        curves: Rows of curves.csv that belong to the trial.
        epoch_times: Variant -> relative time per epoch, returned by `match_epoch_times`. If it
            contains the first variant and another one, a column of training times is added.
    """
    by_map = trial.claim.judged_by == "val_mAP"
    header = (
        "| variant | parameters | seeds | best epoch | val loss | of the baseline's "
        f"{'| mAP on val | Δ mAP' if by_map else '| Δ val loss'} "
        "| last val loss | micro F1 | macro F1 | mAP | micro F1 at 0.5, val |"
    )
    runs = trial.runs
    ran = [variant for variant in trial.claim.variants if variant in set(runs["variant"])]
    timed = len(epoch_times.keys() & set(ran)) > 1 and ran[0] in epoch_times
    if timed:
        header += " training time |"
    judged = judge_variants(trial)
    first = runs[runs["variant"] == ran[0]].set_index("seed")
    ends = curves.sort_values("epoch").groupby(["variant", "seed"])["val_loss"].last()
    rows = []
    for variant in ran:
        own = runs[runs["variant"] == variant].set_index("seed")
        difference, verdict = judged.get(variant, (0.0, None))
        delta = "open" if np.isnan(difference) else f"{difference:+.4f} {verdict or 'open'}"
        f1 = {key: format_spread(own[key], 3) for key in ("test_f1_micro", "test_f1_macro")}
        if variant not in judged:
            delta = ""
        else:
            f1 = {
                key: f"{text} Δ {(own[key] - first[key]).mean():+.3f}" for key, text in f1.items()
            }
        cells = [
            escape_markdown(variant),
            f"{own['num_parameters'].iloc[0] / 1e6:.1f} M",
            str(len(own)),
            f"{format_spread(own['best_epoch'], 0)} of {own['epochs'].max()}",
            format_spread(own["val_loss"], 4),
            f"{(own['val_loss'] / own['prior_loss']).mean():.3f}",
            *([format_spread(own["val_mAP"], 3) if "val_mAP" in own else ""] if by_map else []),
            delta,
            format_spread(ends[variant], 3),
            *f1.values(),
            format_spread(own["test_mAP"], 3),
            format_spread(own["val_f1_micro_at_0.5"], 3),
        ]
        if timed:
            seconds = {
                name: epoch_times.get(name, float("nan")) * table["epochs"].mean()
                for name, table in ((variant, own), (ran[0], first))
            }
            ratio = seconds[variant] / seconds[ran[0]]
            cells.append("" if np.isnan(ratio) else f"{ratio:.2f}")
        rows.append(cells)
    return _lay_out(header, rows)


def match_epoch_times(networks: pd.DataFrame, experiments: Experiments) -> dict[str, float]:
    """Return a mapping from variant to relative time per epoch, if it was measured.

    The time of a variant also applies to variants that differ only in the number of epochs.

    Args:
        networks: Content of networks.csv, with the columns `variant` and `time`.
        experiments: Experiments returned by `read_experiments`.
    """
    times = dict(zip(networks["variant"], networks["time"], strict=True))
    measured = {
        name: _without_epochs(experiments.variants[name])
        for name in times
        if name in experiments.variants
    }
    return {
        variant: times[name]
        for variant, params in experiments.variants.items()
        for name, alike in measured.items()
        if _without_epochs(params) == alike
    }


def _without_epochs(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(params).items() if key != "epochs"}


def tabulate_times(networks: pd.DataFrame) -> str:
    """Return the table of training times in networks.csv."""
    rows = [
        [escape_markdown(row["variant"]), f"{row['images_per_second']:.0f}", f"{row['time']:.2f}"]
        for row in networks.to_dict("records")
    ]
    return _lay_out("| variant | images/s | relative time per epoch |", rows)


def tabulate_alternatives(alternatives: pd.DataFrame) -> str:
    """Return the table in alternatives.csv, which compares phototag with other libraries."""
    ours = alternatives["side"].str.startswith("phototag")
    base = alternatives.loc[ours, "seconds"].iloc[0]
    rows = [
        [
            row["side"],
            f"{row['seconds']:.1f}",
            f"{row['fastest']:.1f}-{row['slowest']:.1f}",
            f"{row['seconds'] / base:.2f}",
            str(row["epochs"]),
            f"{row['total']:.0f}",
            f"{row['val_loss']:.4f}",
            f"{row['f1_micro']:.3f}",
            str(row["lines"]),
        ]
        for row in alternatives.to_dict("records")
    ]
    return _lay_out(
        "| | seconds per epoch | range | relative to phototag | epochs | seconds in total "
        "| val loss | micro F1 | lines |",
        rows,
    )


def tabulate_label_noise(label_noise: pd.DataFrame) -> str:
    """Return the table of scores with and without likely label errors, in label_noise.csv."""
    names = ["photos", "variant", "judge"]
    rows = []
    for _, own in label_noise.groupby(names, sort=False):
        mean = own.drop(columns=names).mean()
        errors, decisions = mean["label_errors"], mean["decisions"]
        cells = [
            *map(escape_markdown, own[names].iloc[0]),
            str(len(own)),
            f"{errors:.0f} of {decisions:.0f} ({errors / decisions:.1%})",
            f"{mean['missing_labels']:.0f}",
            f"{mean['duplicates_in_all']:.0f}, {mean['duplicates_on_test']:.0f}",
        ]
        for key in ("f1_micro", "f1_macro"):
            gains = own[f"{key}_clean"] - own[f"{key}_all"]
            cells += [format_spread(own[f"{key}_all"], 3), format_spread(gains, 3, "+")]
        rows.append(cells)
    return _lay_out(
        "| photos | evaluated | errors found by | seeds | likely errors of decisions "
        "| of these, missing labels | near duplicates: all photos, test "
        "| micro F1 | Δ without them | macro F1 | Δ without them |",
        rows,
    )


def format_spread(values: pd.Series, digits: int, sign: str = "") -> str:
    """Return the mean of values, followed by their range if there are several."""
    mean, low, high = (
        f"{value:{sign}.{digits}f}" for value in (values.mean(), values.min(), values.max())
    )
    if len(values) == 1:
        return mean
    return f"{mean} ({low} to {high})" if sign else f"{mean} ({low}-{high})"


def _lay_out(header: str, rows: Iterable[Sequence[str]]) -> str:
    rule = "|---" * (header.count("|") - 1) + "|"
    return "\n".join([header, rule, *(f"| {' | '.join(cells)} |" for cells in rows)])
