"""Register: model, thresholds, metrics, splits -> a model version; reports/register.json."""

from pathlib import Path

import pandas as pd

from phototag import registry, tracking
from phototag.files import file_digest, read_json, write_json
from phototag.manifest import fingerprint, read_kept
from phototag.params import read_params
from phototag.weights import read_metadata

from . import run


def main() -> None:
    """Run the stage."""
    params = read_params()
    model, thresholds = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
    scores = read_json(Path("reports/evaluate/metrics.json"))
    history = pd.read_csv("reports/train/history.csv")
    metadata = read_metadata(model)
    splits = pd.read_csv("data/splits.csv", keep_default_na=False)
    judged = splits["split"] == ("test" if params.split.test > 0 else "val")
    tags = {
        "content_key": metadata.content_key,
        "model_digest": file_digest(model)[:16] + file_digest(thresholds)[:16],
        "test_fingerprint": fingerprint(read_kept(Path("data/manifest.csv"))[judged]),
    }

    store = tracking.connect()
    run_id = tracking.find_or_rebuild_run(store, metadata.content_key, params.model_dump(), history)
    decision = registry.register_model(store, run_id, model, thresholds, scores, tags)
    write_json(Path("reports/register.json"), decision)


if __name__ == "__main__":
    run(main)
