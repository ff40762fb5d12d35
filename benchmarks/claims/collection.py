"""Tables with results of experiments and benchmarks, in docs/research/results/."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.claims.claims import Experiments, Run, name_photos
from phototag.base.errors import InputError
from phototag.base.files import parse_json, write_table
from phototag.base.params import parse_values
from phototag.experiments.dvc_tools import (
    list_experiments,
    open_revision,
    read_data_hash,
    read_revision,
)
from phototag.metrics.losses import baseline_loss
from phototag.network.model import build_model
from phototag.network.params import ModelParams

RESULTS = Path("docs/research/results")
RUN = ["photos", "variant", "seed"]


def read_runs(root: Path) -> pd.DataFrame:
    """Return runs.csv, or an empty table if the file is missing.

    The column `data` has a hash of the photos and labels; it is NaN in rows of earlier versions.
    """
    runs = read_table(root, "runs", RUN)
    return runs if "data" in runs else runs.assign(data=np.nan)


def check_data(runs: pd.DataFrame) -> None:
    """Check that all runs of a dataset were made with the same photos and labels.

    The synthetic dataset depends on the seed. Therefore, only runs with the same seed are compared.

    Raises:
        InputError: Two runs of a dataset differ in their photos or labels.
    """
    for (photos, seed), own in runs.groupby(["photos", "seed"]):
        variants = own.groupby("data")["variant"].agg(", ".join)
        if len(variants) > 1:
            raise InputError(
                f"{RESULTS}/runs.csv: runs of {photos} with seed {seed} were made with different "
                f"photos, labels or corrections ({' / '.join(variants)}): run the outdated ones "
                "again, or remove their rows"
            )


def read_table(root: Path, name: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of results, or an empty table with `columns` if the file is missing."""
    path = root / RESULTS / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(columns))


def list_finished(root: Path, experiments: Experiments) -> list[Run]:
    """Return the runs of experiments.yaml for which a DVC experiment exists, on any dataset."""
    found = []
    for name, revision in list_experiments(root):
        text = read_revision(root, revision, "params.yaml")
        if text is None:  # the experiment belongs to another project in the same git repository
            continue
        values = parse_values(text, f"params.yaml of {name}")
        photos, seed = name_photos(values["data"]["raw"]), values["seed"]
        runs = [Run(photos, variant, seed, {}) for variant in experiments.variants]
        found += [run for run in runs if run.name == name]
    return found


def collect_results(root: Path, runs: Sequence[Run]) -> pd.DataFrame:
    """Write the results of runs to runs.csv and curves.csv.

    Rows with the same photos, variant and seed are replaced; other rows are not changed. Values are
    not rounded here, because they are rounded when shown, and rounding twice is inaccurate.

    Args:
        root: Root folder of the project.
        runs: Runs to collect; runs without a DVC experiment are skipped.

    Returns:
        New rows of runs.csv, one per collected run.
    """
    revisions = dict(list_experiments(root))
    found = [(run, revisions[run.name]) for run in runs if run.name in revisions]
    rows, curves = [], []
    for run, revision in found:
        own = {"photos": run.photos, "variant": run.variant, "seed": run.seed}
        history = pd.read_csv(
            io.StringIO(read_revision(root, revision, "reports/train/history.csv") or "")
        ).rename(columns={"step": "epoch", "best_step": "best_epoch"})
        own_data = {"data": read_data_hash(root, revision) or np.nan}
        rows.append(own | own_data | _summarize(root, revision, history))
        curves.append(
            pd.DataFrame(own, history.index).join(
                history.drop(columns=["lr", "l2"], errors="ignore")
            )
        )
    merge_table(root / RESULTS / "runs.csv", pd.DataFrame(rows), RUN)
    if curves:
        merge_table(root / RESULTS / "curves.csv", pd.concat(curves), [*RUN, "epoch"])
    return pd.DataFrame(rows)


def _summarize(root: Path, revision: str, history: pd.DataFrame) -> dict[str, Any]:
    training, scores = (
        parse_json(read_revision(root, revision, name) or "", f"{revision}:{name}")
        for name in ("reports/train/training.json", "reports/evaluate/metrics.json")
    )
    # Validate `model` only: the other keys of older experiments may have been renamed since.
    values = parse_values(read_revision(root, revision, "params.yaml") or "", "params.yaml")
    spec = ModelParams.model_validate(values["model"])
    files, project = open_revision(root, revision)
    stats = json.loads(files.read_text(f"{project}data/stats.json"))
    # stats.json contains no known_counts if all labels of all photos are known.
    known = [*stats.get("known_counts", {}).values()] or stats["num_images"]
    rates = np.array(list(stats["label_counts"].values())) / np.maximum(known, 1)
    with torch.device("meta"):
        network = build_model(spec, len(rates), values["resize"]["size"], [0.5] * 3, [1.0] * 3)
    return {
        "epochs": len(history),
        "best_epoch": training["epoch"],
        "prior_loss": baseline_loss(rates, rates[None]),
        "val_loss": training["val_loss"],
        "prior_mAP": float(rates.mean()),  # the expected AP of random scores is the label frequency
        # The history of older experiments contains no mAP.
        "val_mAP": history.set_index("epoch").get("mAP", {}).get(training["epoch"]),
        "val_f1_micro_at_0.5": history["f1_micro"].max(),
        **{f"test_{key}": value for key, value in scores.items()},
        "num_parameters": sum(each.numel() for each in network.parameters()),
    }


def merge_table(path: Path, rows: pd.DataFrame, key: list[str]) -> None:
    """Add rows to a CSV table; they replace existing rows with the same values in `key`."""
    if rows.empty:
        return
    if path.exists():
        old = pd.read_csv(path)
        rows = pd.concat([old, rows]).drop_duplicates(key, keep="last")
    write_table(path, rows[[*key, *(c for c in rows if c not in key)]].sort_values(key))
