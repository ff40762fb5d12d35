import pandas as pd

from phototag.evaluation.report import summarize


def make_scores(f1: float, skill: tuple[float, float, float]) -> pd.DataFrame:
    rows = [
        ("model", "loss", 0.1, 0.09, 0.11),
        ("model", "loss_skill", *skill),
        ("model", "f1_micro", f1, f1 - 0.05, f1 + 0.05),
        ("model", "f1_macro", 0.4, 0.3, 0.5),
        ("model", "precision_micro", 0.8, 0.7, 0.9),
        ("model", "recall_micro", 0.25, 0.2, 0.3),
        ("most frequent label", "f1_micro", 0.31, 0.3, 0.32),
        ("most frequent label", "f1_macro", 0.03, 0.03, 0.03),
    ]
    return pd.DataFrame(rows, columns=["predictor", "metric", "value", "low", "high"])


def make_labels(**f1: float) -> pd.DataFrame:
    """Return labels with 9 positives, and with 4 if the name is `rare`."""
    rows = [(name, value, 4 if name == "rare" else 9) for name, value in f1.items()]
    return pd.DataFrame(rows, columns=["label", "f1", "support"])


def make_slices(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    columns = ["slice", "group", "f1_micro", "f1_micro_low", "f1_micro_high"]
    return pd.DataFrame(rows, columns=columns)


def test_summary_describes_the_tables() -> None:
    labels = make_labels(red=0.9, blue=0.5, green=0.2, rare=1.0)
    slices = make_slices(
        ("brightness", "dark", 0.3, 0.2, 0.4),
        ("brightness", "bright", 0.6, 0.5, 0.7),
        ("colour", "gray", 0.2, 0.0, 0.9),
    )
    scores = make_scores(0.5, (0.4, 0.3, 0.5))
    first, second, third = summarize("8 test photos", scores, labels, slices)
    assert first == (
        "On 8 test photos, the model has recall 25% and precision 80%: micro F1 0.50 (95% "
        "confidence interval 0.45 to 0.55) and macro F1 0.40. Predicting the most "
        "frequent label for every photo would give micro F1 0.31 and macro F1 0.03. The "
        "loss, 0.100, is 40% below the baseline (label frequencies)."
    )
    assert second == (
        "F1 is highest for red (0.90) and lowest for green (0.20). Labels with too few positives "
        "to judge: 1 of 4."
    )
    assert third == (
        "By brightness, micro F1 is significantly lower for dark photos (0.30) than for bright "
        "photos (0.60)."
    )


def test_summary_reports_a_model_that_learnt_nothing() -> None:
    scores = make_scores(0.1, (0.01, -0.02, 0.03))
    labels = make_labels(red=0.0, rare=0.5)
    first, second, third = summarize("8 test photos", scores, labels, make_slices())
    assert "does not differ significantly from the baseline" in first
    assert second.startswith("Fewer than two labels have 5 positives")
    assert third.startswith("Scores do not differ significantly")
    worse = make_scores(0.1, (-0.2, -0.3, -0.1))
    assert "20% ABOVE the baseline" in summarize("8", worse, labels, make_slices())[0]
