"""Comparison of variants with the first variant of their claim, and verdicts on claims."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from benchmarks.claims.claims import Claim, Expectation, Experiments
from phototag.pages.escaping import escape_markdown

# Limits of `judge_losses`, as shares of the first variant's gain over the constant baseline.
SLIGHT, LITTLE = 0.25, 0.2


@dataclass(frozen=True)
class Trial:
    """A claim tested on one dataset.

    Attributes:
        name: Name of the claim.
        claim: Claim read from experiments.yaml.
        photos: Name of the dataset.
        runs: Rows of runs.csv with this dataset and the variants of the claim.
    """

    name: str
    claim: Claim
    photos: str
    runs: pd.DataFrame


def list_trials(experiments: Experiments, runs: pd.DataFrame) -> list[Trial]:
    """List the trials with results of the first variant and of at least one other."""
    trials = []
    for name, claim in experiments.claims.items():
        tried = runs[runs["variant"].isin(claim.variants)]
        for photos in dict.fromkeys(tried["photos"]):
            own = tried[tried["photos"] == photos]
            if {claim.variants[0]} < set(own["variant"]):
                trials.append(Trial(name, claim, photos, own))
    return trials


def answer_claim(trial: Trial) -> str:
    """Describe whether a claim holds, or its scores if the claim states no expectation."""
    claim, runs = trial.claim, trial.runs
    if not claim.expect:
        means = runs.assign(ratio=runs["val_loss"] / runs["prior_loss"]).groupby("variant")
        ratios, f1 = means["ratio"].mean(), means["val_f1_micro_at_0.5"].mean()
        return "; ".join(
            f"{escape_markdown(variant)}: val loss {ratios[variant]:.2f} of the baseline's, "
            f"micro F1 at 0.5 on val {f1[variant]:.2f}"
            for variant in claim.variants
            if variant in ratios
        )
    judged_all = judge_variants(trial)
    alike: dict[str, list[str]] = {}
    for name, (difference, verdict) in judged_all.items():
        variant = escape_markdown(name)
        if np.isnan(difference):
            alike.setdefault("not judged because its runs have no mAP", []).append(variant)
        elif verdict is None:
            alike.setdefault("not judged because only one seed ran", []).append(
                f"{variant} {difference:+.4f}"
            )
        else:
            alike.setdefault(verdict, []).append(variant)
    words = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in alike.items())
    judged = {v: verdict for v in claim.expect if (verdict := judged_all.get(v, (0.0, None))[1])}
    if not judged:
        return words
    right = sum(_fits(claim.expect[variant], verdict) for variant, verdict in judged.items())
    if right == len(claim.expect):
        return f"**holds**. {words}"
    if right == len(judged):
        return f"holds for the variants that ran. {words}"
    return f"{'holds in part' if right else '**does not hold**'}. {words}"


def _fits(expected: Expectation, verdict: str) -> bool:
    if expected == "similar":
        return verdict == "similar" or verdict.startswith("slightly")
    return verdict.endswith(expected) or (expected == "worse" and verdict == "barely learns")


def judge_variants(trial: Trial) -> dict[str, tuple[float, str | None]]:
    """Compare each variant with the first one by val loss or mAP, using `judge_losses`."""
    runs, by_map = trial.runs, trial.claim.judged_by == "val_mAP"
    if by_map:  # add missing columns, because older runs have no mAP
        runs = runs.reindex(columns=list(runs.columns.union(["val_mAP", "prior_mAP"])))
    sign = -1 if by_map else 1  # `judge_losses` requires that lower is better
    values = sign * runs.pivot(index="seed", columns="variant", values=trial.claim.judged_by)
    prior = sign * runs.groupby("seed")["prior_mAP" if by_map else "prior_loss"].first()
    first, *others = trial.claim.variants
    judged = {
        variant: judge_losses(
            pd.DataFrame({"first": values[first], "variant": values[variant], "prior": prior})
        )
        for variant in others
        if variant in values
    }
    return {variant: (sign * mean, verdict) for variant, (mean, verdict) in judged.items()}


def judge_losses(losses: pd.DataFrame) -> tuple[float, str | None]:
    """Compare the losses (or negated scores) of two variants.

    The gain of a variant is its improvement over the constant baseline. A variant "barely learns"
    if its gain is less than `LITTLE` times the first variant's gain. It is "better" or "worse" if
    the difference has the same sign for every seed and its mean exceeds its range (maximum minus
    minimum), and "slightly" so if the mean is less than `SLIGHT` times the first variant's gain.
    Otherwise, it is "similar".

    Args:
        losses: One row per seed, with the columns `first`, `variant` and `prior` (baseline).

    Returns:
        The mean difference, and the verdict, or None if fewer than two seeds have both losses.
    """
    both = losses.dropna()
    differences = both["variant"] - both["first"]
    mean = float(differences.mean())
    if len(both) < 2:
        return mean, None
    gains = both[["first", "variant"]].rsub(both["prior"], axis=0).mean()
    if abs(gains["variant"]) < LITTLE * gains["first"]:
        return mean, "barely learns"
    agree = (np.sign(differences) == np.sign(mean)).all()
    if not agree or abs(mean) <= differences.max() - differences.min():
        return mean, "similar"
    slight = "slightly " if abs(mean) < SLIGHT * gains["first"] else ""
    return mean, slight + ("worse" if mean > 0 else "better")


def predict_range(values: pd.Series) -> tuple[float, float]:
    """Compute the 95 % prediction interval for the score of another run.

    The scores are assumed to be normally distributed, with estimated mean and standard deviation:
    mean +- t(0.975, n - 1) * s * sqrt(1 + 1/n) (Hahn and Meeker, Statistical Intervals, 1991).

    Args:
        values: Scores of n runs, n >= 2.

    Returns:
        Lower and upper limit of the interval.
    """
    n = len(values)
    half = float(student.ppf(0.975, n - 1) * values.std() * np.sqrt(1 + 1 / n))
    return float(values.mean()) - half, float(values.mean()) + half
