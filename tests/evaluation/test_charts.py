import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation import charts
from phototag.evaluation.tables import sort_labels


def test_panels_show_the_most_frequent_labels() -> None:
    rng = np.random.default_rng(0)
    # The first twelve labels have no positives.
    rates = np.append(np.zeros(12), np.linspace(0.2, 0.6, 28))
    targets = (rng.random((40, 40)) < rates).astype(np.uint8)
    labels = [f"l{number}" for number in range(40)]
    figure = charts.draw_score_distributions(
        labels, targets, rng.random(targets.shape), np.full(40, 0.5)
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == charts.MAX_PANELS
    shown = [int(title.split()[0][1:]) for title in titles]
    assert min(shown) >= 12
    support = targets.sum(axis=0, dtype=int)
    expected = [f"l{label} ({support[label]})" for label in shown]
    assert titles == expected
    assert "the 24 most frequent of 40" in figure.get_suptitle()


def test_figures_ignore_unknown_entries() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((80, 3)) < 0.5).astype(np.int8)
    probabilities, known = rng.random((80, 3)), rng.random((80, 3)) < 0.6
    targets, predicted = np.where(known, truth, UNKNOWN), probabilities > 0.5
    panels = charts.draw_cooccurrence(list("abc"), targets, predicted).axes
    for axes, values in zip(panels, (truth, predicted), strict=True):
        shown = np.asarray(axes.images[0].get_array())
        for row, column in ((0, 1), (1, 0), (2, 1)):
            both = known[:, row] & known[:, column] & values[:, row].astype(bool)
            assert shown[row, column] == pytest.approx(values[both, column].mean())
    curve = charts.draw_pr_curves(targets, probabilities).axes[0].get_lines()
    for line, (t, p) in (
        (curve[3], (truth[known], probabilities[known])),
        *((curve[at], (truth[known[:, n], n], probabilities[known[:, n], n]))
          for at, n in enumerate(sort_labels(targets))),
    ):  # fmt: skip
        precision, recall, _ = precision_recall_curve(t, p)
        drawn = np.asarray(line.get_xydata())
        np.testing.assert_allclose(drawn, np.column_stack([recall, precision]))
