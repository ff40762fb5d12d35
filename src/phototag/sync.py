"""DVC's experiments to MLflow runs, where the store lacks one.

An experiment whose stages DVC found in its cache ran no code, so it left no run of its own.
"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.repo import Repo

from phototag.tracking import Store, find_or_rebuild_run, find_run, log_scores
from phototag.weights import read_metadata

MODEL = "models/model.safetensors"


def sync_experiments(store: Store, root: Path) -> list[str]:
    """Give every DVC experiment its MLflow run, rebuilt from what DVC tracks.

    Args:
        store: Where the runs belong.
        root: The repository.

    Returns:
        The experiments that had none, by name.
    """
    with Repo(str(root)) as repo:
        listed = repo.experiments.ls(all_commits=True)
    experiments = [experiment for group in listed.values() for experiment in group]
    return [name for name, revision in experiments if _sync(store, root, name, revision)]


def _sync(store: Store, root: Path, name: str, revision: str) -> bool:
    files = DVCFileSystem(str(root), rev=revision)
    if not files.exists(MODEL):
        return False
    with TemporaryDirectory() as folder:
        model = Path(folder, "model.safetensors")
        files.get_file(MODEL, str(model))
        key = read_metadata(model).content_key
    run = find_run(store, key, name)
    if run and "test_loss" in run.data.metrics:
        return False
    history = pd.read_csv(io.BytesIO(files.cat_file("reports/train/history.csv")))
    params = yaml.safe_load(files.cat_file("params.yaml"))
    scores = yaml.safe_load(files.cat_file("reports/evaluate/metrics.json"))
    run_id = find_or_rebuild_run(store, key, params, history, name)
    log_scores(store, run_id, scores)
    return True
