"""Register the model: model, scores and data files -> a model version, reports/register/."""

from pathlib import Path

import pandas as pd

from phototag.base.files import file_digest, read_json
from phototag.base.params import read_params, read_values
from phototag.registry.decision import describe_decision, skip_registration
from phototag.registry.params import RegistrationParams
from phototag.tracking.provenance import experiment_name

from . import run

MANIFEST, REPORTS = Path("data/manifest.csv"), Path("reports/register")


def main() -> None:
    """Register the model, except in an experiment if `registry.experiments` is false."""
    params = read_params(RegistrationParams)
    if experiment_name() and not params.registry.experiments:
        skip_registration(REPORTS, experiment_name())
    else:
        register(params)


def register(params: RegistrationParams) -> None:
    """Register the model as challenger, and compare it with the champion on the test photos."""
    # Import PyTorch and MLflow only if the model is registered, because this takes seconds.
    from phototag.dataset.dataset import read_datasets
    from phototag.network.weights import read_metadata
    from phototag.registry import versions
    from phototag.registry.challenges import challenge_champion
    from phototag.registry.photos import list_ids
    from phototag.registry.report import write_report
    from phototag.serving.pyfunc import digest_model
    from phototag.tracking.runs import Training, find_or_rebuild_run, log_folder
    from phototag.tracking.store import connect

    model, thresholds = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
    files = model, thresholds
    scores = read_json(Path("reports/evaluate/metrics.json"))
    history = pd.read_csv("reports/train/history.csv")
    metadata = read_metadata(model)
    datasets = read_datasets(Path("data/images.npy"), MANIFEST, Path("data/splits.csv"))
    tags = versions.describe_model(
        metadata,
        scores,
        read_json(thresholds)["thresholds"],
        digest_model(*files),
        file_digest(MANIFEST)[:16],
        datasets,
    )
    table = pd.read_csv("reports/evaluate/scores.csv")
    description = versions.write_description(table, metadata, versions.evaluated_split(datasets))

    with connect() as store:
        training = Training(metadata.content_key, read_values())
        run_id = find_or_rebuild_run(store, training, history)
        version = versions.register_model(
            store, run_id, files, list_ids(datasets), tags, description
        )
        decision, comparison = challenge_champion(
            store, version, files, datasets, params.evaluate.resamples, params.seed
        )
        write_report(REPORTS, store.client, decision, comparison)
        log_folder(store, run_id, REPORTS)
    print(describe_decision(decision))


if __name__ == "__main__":
    run(main)
