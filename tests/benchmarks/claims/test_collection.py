import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import entropy

from benchmarks.claims import collection
from benchmarks.claims.claims import Run, read_experiments
from benchmarks.claims.collection import RESULTS, collect_results, list_finished
from tests.benchmarks.claims.files import write_experiments
from tests.projects import ROOT


def test_list_finished_matches_names_with_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    raws = {
        "few-fast-s2": ("/somewhere/few.zip", 2),
        "synthetic-plain-s0": ("data/sample", 0),
        "few-very-fast-s0": ("/somewhere/few.zip", 0),  # an unknown variant
        "my-own": ("data/sample", 0),
    }
    params = {
        name: yaml.safe_dump({"seed": seed, "data": {"raw": raw}})
        for name, (raw, seed) in raws.items()
    }
    monkeypatch.setattr(collection, "list_experiments", lambda root: [(n, n) for n in params])
    monkeypatch.setattr(collection, "read_revision", lambda root, revision, path: params[revision])
    found = list_finished(tmp_path, experiments)
    assert [(run.photos, run.variant, run.seed) for run in found] == [
        ("few", "fast", 2),
        ("synthetic", "plain", 0),
    ]


@pytest.mark.parametrize("known", [{}, {"known_counts": {"sea": 20, "tree": 40}}])
def test_collected_values_are_not_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, Any]
) -> None:
    loss = 0.16324963  # rounded to 5 digits first, it would be shown as 0.1633
    history = f"epoch,train_loss,val_loss,f1_micro,f1_macro,lr\n1,0.2,{loss},0.33333333,0.2,0.001\n"
    texts = {
        "reports/train/history.csv": history,
        "reports/train/training.json": json.dumps({"epoch": 1, "val_loss": loss}),
        "reports/evaluate/metrics.json": json.dumps({"f1_micro": 0.4}),
        "dvc.lock": "stages: {resize: {deps: [{path: few.zip, md5: a}]}}",
        "params.yaml": (ROOT / "params.yaml").read_text(),
    }
    stats = json.dumps({"label_counts": {"sea": 10, "tree": 30}, "num_images": 90} | known)
    files = SimpleNamespace(read_text=lambda path: stats)
    monkeypatch.setattr(collection, "list_experiments", lambda root: [("few-report-s0", "abc")])
    monkeypatch.setattr(collection, "read_revision", lambda root, revision, path: texts[path])
    monkeypatch.setattr(collection, "open_revision", lambda root, revision: (files, ""))
    runs = [Run("few", "report", 0, {}), Run("few", "report", 1, {})]  # the second did not run
    row = collect_results(tmp_path, runs).iloc[0]
    kept = pd.read_csv(tmp_path / RESULTS / "runs.csv").iloc[0]
    curve = pd.read_csv(tmp_path / RESULTS / "curves.csv").iloc[0]
    assert row["val_loss"] == kept["val_loss"] == curve["val_loss"] == loss
    assert kept["val_f1_micro_at_0.5"] == curve["f1_micro"] == 0.33333333
    rates = (1 / 2, 3 / 4) if known else (1 / 9, 1 / 3)
    prior = np.mean([entropy([rate, 1 - rate]) for rate in rates])
    assert kept["prior_loss"] == pytest.approx(prior, rel=1e-7)


def test_merge_table_replaces_rows_of_the_same_key(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    for seeds, loss in (([0, 1], 0.25), ([1, 2], 0.5)):
        rows = pd.DataFrame({"val_loss": loss, "seed": seeds})
        collection.merge_table(table, rows, ["seed"])
    assert table.read_text() == "seed,val_loss\n0,0.25\n1,0.5\n2,0.5\n"
