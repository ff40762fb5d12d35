import numpy as np

from phototag.evaluation import charts


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
