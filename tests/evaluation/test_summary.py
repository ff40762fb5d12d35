import numpy as np
import pandas as pd

from phototag.evaluation.summary import summarize


def make_scores(f1: float, skill: tuple[float, float, float], coverage: float) -> pd.DataFrame:
    rows = [
        ("model", "loss", 0.1, 0.09, 0.11),
        ("model", "loss_skill", *skill),
        ("model", "f1_micro", f1, f1 - 0.05, f1 + 0.05),
        ("model", "f1_macro", 0.4, 0.3, 0.5),
        ("model", "precision_micro", 0.8, 0.7, 0.9),
        ("model", "recall_micro", 0.25, 0.2, 0.3),
        ("model", "unlabelled_accuracy", coverage, coverage, coverage),
        ("most frequent label", "f1_micro", 0.31, 0.3, 0.32),
        ("most frequent label", "f1_macro", 0.03, 0.03, 0.03),
    ]
    return pd.DataFrame(rows, columns=["predictor", "metric", "value", "low", "high"])


def make_labels(**f1: tuple[float, float, float]) -> pd.DataFrame:
    rows = [(name, 9, *values, values[0]) for name, values in f1.items()]
    return pd.DataFrame(rows, columns=["label", "support", "f1", "f1_low", "f1_high", "recall"])


def make_slices(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    columns = ["slice", "group", "f1_micro", "f1_micro_low", "f1_micro_high"]
    return pd.DataFrame(rows, columns=columns)


def test_summary_describes_the_tables() -> None:
    labels = make_labels(red=(0.9, 0.8, 1), blue=(0.5, 0.4, 0.6), green=(0.2, 0.1, 0.7))
    slices = make_slices(
        ("number of labels", "1", 0.1, 0.1, 0.1),
        ("number of labels", "2", 0.9, 0.9, 0.9),
        ("brightness", "dark", 0.3, 0.2, 0.4),
        ("brightness", "bright", 0.6, 0.5, 0.7),
        ("colour", "gray", 0.2, 0.0, 0.9),
    )
    scores = make_scores(0.5, (0.4, 0.3, 0.5), 0.75)
    first, second, third = summarize("8 test photos", scores, labels, slices)
    assert first == (
        "On 8 test photos, the model has recall 25% and precision 80%: micro F1 0.50 (95% "
        "confidence interval 0.45 to 0.55) and macro F1 0.40. Predicting the most "
        "frequent label for every photo would give 0.31 and 0.03. The loss, 0.100, is 40% below "
        "the baseline (label frequencies)."
    )
    assert second == (
        "F1 is highest for red (0.90) and lowest for green (0.20). With only 9 positives, the F1 "
        "of green is uncertain: 0.10 to 0.70."
    )
    assert third == (
        "For 75% of the photos without labels, no label is predicted. By brightness, micro F1 is "
        "significantly lower for dark photos (0.30) than for bright photos (0.60)."
    )


def test_summary_reports_a_model_that_learnt_nothing() -> None:
    scores = make_scores(0.1, (0.01, -0.02, 0.03), np.nan)
    labels = make_labels(red=(0.0, 0.0, 0.0), blue=(0.1, 0.0, 0.2))
    first, second, third = summarize("8 test photos", scores, labels, make_slices())
    assert "does not differ significantly from the baseline" in first
    assert second.endswith("lowest for red (0.00). No red is found (of 9).")
    assert third.startswith("Every photo has a label. No slice")
    worse = make_scores(0.1, (-0.2, -0.3, -0.1), 1.0)
    assert "20% ABOVE the baseline" in summarize("8", worse, labels, make_slices())[0]
