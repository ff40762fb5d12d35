"""Register the model: model, scores and data files -> a model version, reports/register/."""

from pathlib import Path

from phototag.base.params import read_params, read_values
from phototag.registry.decision import describe_decision, skip_registration
from phototag.registry.params import RegistrationParams
from phototag.tracking.provenance import experiment_name

from . import run

REPORTS = Path("reports/register")


def main() -> None:
    """Register the model, except in an experiment if `registry.experiments` is false."""
    params = read_params(RegistrationParams)
    if experiment_name() and not params.registry.experiments:
        skip_registration(REPORTS, experiment_name())
    else:
        register(params)


def register(params: RegistrationParams) -> None:
    """Register the model as challenger, and compare it with the champion."""
    # Import PyTorch and MLflow only if the model is registered, because this takes seconds.
    from phototag.network.weights import read_metadata
    from phototag.registry.registration import register_results
    from phototag.tracking.runs import Training
    from phototag.tracking.store import connect

    files = {
        "images": Path("data/images.npy"),
        "features": Path("data/features.npy"),
        "manifest": Path("data/manifest.csv"),
        "splits": Path("data/splits.csv"),
        "history": Path("reports/train/history.csv"),
        "model": Path("models/model.safetensors"),
        "reference": Path("models/reference.safetensors"),
        "thresholds": Path("reports/evaluate/thresholds.json"),
        "metrics": Path("reports/evaluate/metrics.json"),
        "scores": Path("reports/evaluate/scores.csv"),
        "per_label": Path("reports/evaluate/per_label.csv"),
        "slices": Path("reports/evaluate/slices.csv"),
        "predictions": Path("reports/evaluate/predictions.csv"),
        "summary": Path("reports/resize/summary.json"),
    }
    training = Training(read_metadata(files["model"]).content_key, read_values())
    with connect() as store:
        decision = register_results(
            store,
            files,
            training,
            params.evaluate.resamples,
            params.seed,
            REPORTS,
            params.data.license,
        )
    print(describe_decision(decision))


if __name__ == "__main__":
    run(main)
