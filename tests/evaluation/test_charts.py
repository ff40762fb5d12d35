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


def test_panels_of_labels_with_few_positives_are_empty() -> None:
    targets = np.zeros((20, 2), np.uint8)
    targets[:4, 0] = targets[:5, 1] = 1
    figure = charts.draw_score_distributions(
        ["few", "enough"], targets, np.full(targets.shape, 0.3), np.full(2, 0.5)
    )
    few, enough = figure.axes
    assert [text.get_text() for text in few.texts] == ["too few to judge"]
    assert not few.patches
    assert not enough.texts
    assert enough.patches
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["without the label", "with the label", "threshold"]
