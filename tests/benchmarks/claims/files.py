"""Small experiments.yaml files and tables of results."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.claims.collection import RESULTS
from tests.projects import ROOT


def write_experiments(path: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "base": {},
        "photos": {"few": {"epochs": 3}},
        "variants": {"plain": {}, "fast": {"lr": 0.01, "model": {"conv": [{"out": 4}]}}},
        "claims": {"speed": {"statement": "Fast is better.", "variants": ["plain", "fast"]}},
    }
    path.write_text(yaml.safe_dump(values | changes))
    return path


def write_runs(root: Path, losses: dict[tuple[str, int], float]) -> pd.DataFrame:
    rows = [
        {
            "photos": "few",
            "variant": variant,
            "seed": seed,
            "epochs": 2,
            "best_epoch": 1,
            "prior_loss": 0.35,
            "val_loss": loss,
            "val_f1_micro_at_0.5": 0.3,
            "test_f1_micro": 1 - loss,
            "test_f1_macro": 0.5 - loss,
            "test_mAP": 0.6 - loss,
            "num_parameters": 1_500_000,
            "images_per_second": np.nan,
            "data": np.nan,
        }
        for (variant, seed), loss in losses.items()
    ]
    curves = [
        {**row, "epoch": epoch, "train_loss": row["val_loss"], "f1_micro": 0.3, "f1_macro": 0.2}
        for row in rows
        for epoch in (1, 2)
    ]
    (root / RESULTS).mkdir(parents=True)
    pd.DataFrame(rows).to_csv(root / RESULTS / "runs.csv", index=False)
    pd.DataFrame(curves).to_csv(root / RESULTS / "curves.csv", index=False)
    report = (ROOT / RESULTS / "report_curves.csv").read_bytes()
    (root / RESULTS / "report_curves.csv").write_bytes(report)
    return pd.DataFrame(rows)
