import numpy as np
import pandas as pd
import pytest

from benchmarks.claims.claims import Claim
from benchmarks.claims.verdicts import Trial, judge_losses, judge_variants, predict_range


@pytest.mark.parametrize(
    ("first", "variant", "mean", "verdict"),
    [
        ([0.2, 0.3], [0.25, 0.34], 0.045, "worse"),  # +0.05, +0.04
        ([0.2, 0.3], [0.15, 0.26], -0.045, "better"),
        ([0.2, 0.3], [0.21, 0.312], 0.011, "slightly worse"),  # under 0.25 of a gain of 0.1
        ([0.2, 0.3], [0.192, 0.29], -0.009, "slightly better"),
        ([0.2, 0.3], [0.25, 0.29], 0.02, "similar"),  # the seeds disagree
        ([0.2, 0.3], [0.21, 0.36], 0.035, "similar"),  # +0.01, +0.06: the range exceeds the mean
        ([0.2, 0.3], [0.34, 0.342], 0.091, "barely learns"),  # gains 0.009, the first 0.1
        ([0.2], [0.3], 0.1, None),
        (
            [0.2, 0.3, 0.9],
            [0.25, 0.34, np.nan],
            0.045,
            "worse",
        ),  # seeds that only one has are ignored
    ],
)
def test_judge_losses(
    first: list[float], variant: list[float], mean: float, verdict: str | None
) -> None:
    losses = pd.DataFrame({"first": first, "variant": variant, "prior": 0.35})
    found, told = judge_losses(losses)
    assert found == pytest.approx(mean)
    assert told == verdict


def test_claim_can_be_judged_by_map() -> None:
    """A variant that minimizes another loss may have a higher val loss and a better ranking."""
    runs = pd.DataFrame(
        {
            "variant": ["plain", "weighted"] * 2,
            "seed": [0, 0, 1, 1],
            "prior_loss": 0.35,
            "val_loss": [0.2, 0.3, 0.21, 0.32],
            "prior_mAP": 0.1,
            "val_mAP": [0.3, 0.4, 0.32, 0.41],
        }
    )
    claims = {
        judge: Claim(statement="", variants=("plain", "weighted"), judged_by=judge)
        for judge in ("val_loss", "val_mAP")
    }
    told = {
        judge: judge_variants(Trial("weights", claim, "few", runs))["weighted"]
        for judge, claim in claims.items()
    }
    assert [verdict for _, verdict in told.values()] == ["worse", "better"]
    assert [mean for mean, _ in told.values()] == pytest.approx([0.105, 0.095])
    old = runs.drop(columns=["prior_mAP", "val_mAP"])  # older tables have no mAP
    assert judge_variants(Trial("weights", claims["val_mAP"], "few", old))["weighted"][1] is None


def test_prediction_interval_of_three_runs() -> None:
    # The 0.975 quantile of t with 2 degrees of freedom is 4.3027; the standard deviation is 1.
    low, high = predict_range(pd.Series([1.0, 2.0, 3.0]))
    half = 4.3027 * (4 / 3) ** 0.5
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-3)
