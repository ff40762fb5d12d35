from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from phototag.search.report import MIN_TRIALS, write_report
from phototag.search.storage import Plan
from phototag.search.winner import Comparison
from tests.search.files import make_study

FIGURES = {"history", "importances", "slices"}


def write_page(folder: Path, num_trials: int) -> str:
    """Write the page of a study whose objective depends on lr only, and return its text."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    names = {"lr": FloatDistribution(0, 1), "weight_decay": FloatDistribution(0, 1)}
    for number in range(num_trials):
        values = {"lr": number / num_trials, "weight_decay": number * 7 % 11 / 11}
        study.add_trial(
            create_trial(
                params=values,
                distributions=names,
                value=0.1 + values["lr"],
                user_attrs={"settings": values},
            )
        )
    rows = [(0, "f1_micro", 0.6, 0.5, 0.1, -0.1, 0.3), (0, "loss", 0.1, 0.2, -0.1, -0.2, 0.1)]
    columns = ["seed", "metric", "winner", "start", "difference", "low", "high"]
    comparison = Comparison(pd.DataFrame(rows, columns=columns), "test", 1, ("a", "b"))
    space = {name: {"low": 0.0, "high": 1.0} for name in names}
    plan = Plan(name="small-0123abcd", study=make_study(space=space), base={}, root=folder)
    write_report(folder, plan, study, None, comparison)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("num_trials", [1, MIN_TRIALS - 1, MIN_TRIALS])
def test_importances_require_enough_trials(tmp_path: Path, num_trials: int) -> None:
    page = write_page(tmp_path, num_trials)
    enough = num_trials >= MIN_TRIALS
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == (FIGURES if enough else {"history"})
    assert page.count("<img") == len(drawn)
    assert (f"estimates from {num_trials} complete trials" in page) == enough
    assert (f"(complete trials: {num_trials})" in page) != enough
