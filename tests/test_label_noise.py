import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from benchmarks.label_noise import set_aside


def test_errors_and_second_copies_are_left_out() -> None:
    rng = np.random.default_rng(0)
    images, labels = [f"im{n}.jpg" for n in range(20)], ["bird", "sea", "tree"]
    decisions = pd.DataFrame(
        {
            "image": np.repeat(images, 3),
            "label": np.tile(labels, 20),
            "target": rng.integers(0, 2, 60),
            "predicted": rng.integers(0, 2, 60),
        }
    )
    wrong = [4, 13, 30, 31]
    errors = decisions.loc[wrong, ["image", "label"]]
    told = set_aside(decisions, errors, {"im7.jpg"})

    kept = decisions.drop([*wrong, 21, 22, 23])
    for table, which in ((decisions, "all"), (kept, "clean")):
        micro = f1_score(table["target"], table["predicted"])
        macro = np.mean(
            [f1_score(own["target"], own["predicted"]) for _, own in table.groupby("label")]
        )
        assert told[f"f1_micro_{which}"] == pytest.approx(micro, abs=1e-4)
        assert told[f"f1_macro_{which}"] == pytest.approx(macro, abs=1e-4)
    assert told["decisions"] == 60
    assert told["label_errors"] == 4
    assert told["missing_labels"] == (decisions.loc[wrong, "target"] == 0).sum()
    assert told["near_duplicates"] == 1
