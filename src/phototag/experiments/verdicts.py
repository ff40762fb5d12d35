"""Verdicts: how variants did beside the first of their claim, and whether the claim holds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from phototag.experiments.claims import Claim, Expectation, Experiments
from phototag.pages.cells import escape_markdown

SLIGHT, LITTLE = 0.25, 0.2  # shares of what the first variant gains over the prior


@dataclass(frozen=True)
class Trial:
    """A claim, tried on one set of photos.

    Attributes:
        name: Of the claim.
        claim: Of experiments.yaml.
        photos: Name of the set of photos.
        runs: Their rows of runs.csv, of the claim's variants.
    """

    name: str
    claim: Claim
    photos: str
    runs: pd.DataFrame


def list_trials(experiments: Experiments, runs: pd.DataFrame) -> list[Trial]:
    """List the claims and photos of which the first variant ran, and one beside it."""
    trials = []
    for name, claim in experiments.claims.items():
        tried = runs[runs["variant"].isin(claim.variants)]
        for photos in dict.fromkeys(tried["photos"]):
            own = tried[tried["photos"] == photos]
            if {claim.variants[0]} < set(own["variant"]):
                trials.append(Trial(name, claim, photos, own))
    return trials


def answer_claim(trial: Trial) -> str:
    """Say whether the claim holds, or part of it; of one that expects nothing, the figures."""
    claim, runs = trial.claim, trial.runs
    if not claim.expect:
        means = runs.assign(ratio=runs["val_loss"] / runs["prior_loss"]).groupby("variant")
        ratios, f1 = means["ratio"].mean(), means["val_f1_micro_at_0.5"].mean()
        return "; ".join(
            f"{escape_markdown(variant)}: val loss {ratios[variant]:.2f} of the prior's, micro F1 "
            f"at 0.5 on val {f1[variant]:.2f}"
            for variant in claim.variants
            if variant in ratios
        )
    told = judge_variants(trial)
    alike: dict[str, list[str]] = {}
    for name, (difference, verdict) in told.items():
        variant = escape_markdown(name)
        if np.isnan(difference):
            alike.setdefault("not judged, its runs have no mAP", []).append(variant)
        elif verdict is None:
            alike.setdefault("one seed, not judged", []).append(f"{variant} {difference:+.4f}")
        else:
            alike.setdefault(verdict, []).append(variant)
    words = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in alike.items())
    judged = {v: verdict for v in claim.expect if (verdict := told.get(v, (0.0, None))[1])}
    if not judged:
        return words
    right = sum(_fits(claim.expect[variant], verdict) for variant, verdict in judged.items())
    if right == len(claim.expect):
        return f"**holds**. {words}"
    if right == len(judged):
        return f"holds as far as it was run. {words}"
    return f"{'holds in part' if right else '**does not hold**'}. {words}"


def _fits(expected: Expectation, verdict: str) -> bool:
    if expected == "similar":
        return verdict == "similar" or verdict.startswith("slightly")
    return verdict.endswith(expected) or (expected == "worse" and verdict == "barely learns")


def judge_variants(trial: Trial) -> dict[str, tuple[float, str | None]]:
    """Judge each variant that ran beside the first, by val loss or mAP; see `judge_losses`."""
    runs, by_map = trial.runs, trial.claim.judged_by == "val_mAP"
    if by_map:  # runs of before it was collected have none
        runs = runs.reindex(columns=list(runs.columns.union(["val_mAP", "prior_mAP"])))
    sign = -1 if by_map else 1  # what is compared is best where it is smallest
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
    """Compare losses of two variants, seed by seed; or minus a score that is best when high.

    Better or worse is what differs in the same direction for every seed, by more on average than
    the differences spread (largest less smallest), and slightly so where that is less than
    `SLIGHT` of what the first gains over always predicting the prior. All else is similar; but a
    variant that gains less than `LITTLE` of that barely learns.

    Args:
        losses: Row a seed; columns first, variant and prior.

    Returns:
        The mean difference, and the verdict; None where fewer than two seeds have both.
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
    """Compute where one more run lies with a probability of 95 %.

    The prediction interval of a normal distribution whose mean and deviation are estimated:
    mean +- t(0.975, n - 1) * s * sqrt(1 + 1/n) (Hahn and Meeker, Statistical Intervals, 1991).

    Args:
        values: One score of n >= 2 runs.

    Returns:
        Lower and upper end.
    """
    n = len(values)
    half = float(student.ppf(0.975, n - 1) * values.std() * np.sqrt(1 + 1 / n))
    return float(values.mean()) - half, float(values.mean()) + half
