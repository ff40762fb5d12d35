"""Register: model, evaluation, images, manifest, splits -> a model version; reports/register/."""

from pathlib import Path

import pandas as pd

from phototag import images, registry, serving, tagger, tracking
from phototag.dataset import read_datasets
from phototag.files import content_key, file_digest, read_json, write_json, write_table
from phototag.manifest import fingerprint, read_kept
from phototag.pages import write_page
from phototag.params import read_params
from phototag.weights import read_metadata

from . import run

# A version brings its own code along: with other code it is another version.
CODE = [Path(str(m.__file__)) for m in (images, serving, tagger)]
MANIFEST, REPORTS = Path("data/manifest.csv"), Path("reports/register")


def main() -> None:
    """Run the stage."""
    params = read_params()
    model, thresholds = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
    scores = read_json(Path("reports/evaluate/metrics.json"))
    history = pd.read_csv("reports/train/history.csv")
    metadata = read_metadata(model)
    datasets = read_datasets(Path("data/images.npy"), MANIFEST, Path("data/splits.csv"))
    judged = datasets["test" if params.split.test > 0 else "val"]
    tags = registry.describe_model(
        metadata,
        scores,
        read_json(thresholds)["thresholds"],
        content_key(None, [model, thresholds, *CODE]),
        file_digest(MANIFEST)[:16],
        fingerprint(read_kept(MANIFEST).iloc[judged.rows]),
    )
    description = registry.write_description(pd.read_csv("reports/evaluate/scores.csv"), metadata)

    store = tracking.connect()
    run_id = tracking.find_or_rebuild_run(store, metadata.content_key, params.model_dump(), history)
    version = registry.register_model(store, run_id, model, thresholds, tags, description)
    decision, comparison = registry.challenge_champion(
        store, version, model, thresholds, judged, params.evaluate.resamples, params.seed
    )
    write_json(REPORTS / "decision.json", decision)
    write_table(REPORTS / "comparison.csv", comparison)
    write_page(
        REPORTS / "report.html",
        "register.html.j2",
        title="Is it better than the champion?",
        headline=[decision["reason"]],
        decision=decision,
        rows=comparison.to_dict("records"),
    )
    tracking.log_folder(store, run_id, REPORTS)


if __name__ == "__main__":
    run(main)
