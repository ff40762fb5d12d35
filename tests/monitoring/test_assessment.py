from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from phototag.metrics.bootstrap import bootstrap_weights
from phototag.monitoring.assessment import assess
from phototag.monitoring.calibrators import fit_calibrators
from phototag.monitoring.estimates import score_counts
from phototag.monitoring.reference import Reference, load_reference, save_reference
from phototag.monitoring.results import number_window, read_windows, write_results
from phototag.monitoring.windows import Window

LABELS = ["a", "b"]


def draw(number: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets; the logits are twice too small."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(rate, 2, (number, 2))
    return logits, (rng.random((number, 2)) < expit(2 * logits)).astype(np.int8)


def make_reference() -> Reference:
    logits, targets = draw(3000, -1, 0)
    weights, predicted = bootstrap_weights(3000, 50, 0), logits > 0
    counts = [part.astype(float) for part in (predicted & (targets > 0), predicted, targets)]
    return Reference(
        LABELS,
        3000.0,
        fit_calibrators(logits, targets, weights),
        score_counts(*(weights @ part for part in counts)),
        targets.mean(axis=0),
        targets.sum(axis=0),
        np.quantile(expit(logits), np.linspace(0, 1, 501), axis=0).astype(np.float32),
        np.linspace(0, 100, 501, dtype=np.float32),
        np.linspace(0, 1, 501, dtype=np.float32)[:, None].repeat(4, axis=1),
    )


def make_window(logits: np.ndarray, familiarity: np.ndarray) -> Window:
    number = len(logits)
    names = [f"{row:064x}" for row in range(number)]
    return Window(names, logits, logits > 0, familiarity, np.full((number, 4), np.nan))


def test_calibrators_equal_those_of_scikit_learn() -> None:
    logits, targets = draw(3000, -1, 0)
    own = fit_calibrators(logits, targets, np.ones((1, 3000)))[0]
    for label in range(2):
        model = LogisticRegression(C=np.inf).fit(logits[:, [label]], targets[:, label])
        assert own[label] == pytest.approx([model.intercept_[0], model.coef_[0, 0]], abs=0.03)


def test_estimate_of_a_changed_label_rate_covers_the_truth() -> None:
    reference = make_reference()
    logits, targets = draw(1000, 1, 5)
    found = assess(make_window(logits, np.linspace(0, 100, 1000)), reference, 1)
    predicted = logits > 0
    truth = 2 * (predicted & (targets > 0)).sum() / (predicted.sum() + targets.sum())
    assert found.metrics["f1_micro_low"] < truth < found.metrics["f1_micro_high"]
    assert abs(reference.scores[0, 0, 0] - truth) > 2 * abs(found.metrics["f1_micro"] - truth)


def test_alarm_if_the_scores_are_uncertain_and_withheld_if_the_photos_differ(
    tmp_path: Path,
) -> None:
    reference = make_reference()
    save_reference(tmp_path / "reference.safetensors", reference)
    reference = load_reference(tmp_path / "reference.safetensors")
    logits, _ = draw(1000, -1, 6)
    even = np.linspace(0, 100, 1000)
    windows = {
        "same": make_window(logits, even),
        "unsure": make_window(logits / 8, even),
        "foreign": make_window(logits, even / 10),
    }
    verdicts = {}
    for name, window in windows.items():
        number = number_window(read_windows(tmp_path), "1", name)
        found = assess(window, reference, number)
        write_results(tmp_path, name, "1", name, found)
        verdicts[name] = found.verdict
    assert verdicts == {"same": "no alarm", "unsure": "alarm", "foreign": "withheld"}
    assert [each["window"] for each in read_windows(tmp_path).values()] == [1, 2, 3]
    assert number_window(read_windows(tmp_path), "1", "unsure") == 2
    assert "f1_micro" not in read_windows(tmp_path)["foreign"]
    assert "foreign" in (tmp_path / "foreign/report.html").read_text()
