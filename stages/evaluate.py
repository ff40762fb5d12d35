"""Evaluate the model: model, data files and training history -> reports/evaluate/."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.files import write_json, write_table
from phototag.base.git import describe_commit
from phototag.base.params import read_params, read_values
from phototag.base.timings import Timings
from phototag.dataset.dataset import describe_splits, read_datasets
from phototag.dataset.manifest import read_kept
from phototag.evaluation.galleries import build_galleries, list_least_familiar
from phototag.evaluation.params import EvaluationParams
from phototag.evaluation.report import draw_figures, write_report
from phototag.evaluation.result import evaluate, headline, operating_point
from phototag.network.familiarity import split_network
from phototag.network.features import read_features
from phototag.network.inference import pick_device, predict_logits
from phototag.network.reference import compute_features, rate_photos
from phototag.network.runtime import keep_freed_memory
from phototag.network.weights import describe_origin, load_familiarity, load_model
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.tracking.description import DATASET_TAG, PHOTOS_TAG, RECIPE_TAG
from phototag.tracking.evaluations import record_evaluation
from phototag.tracking.runs import Training
from phototag.tracking.store import connect

from . import run

MANIFEST, REPORTS = Path("data/manifest.csv"), Path("reports/evaluate")
MODEL = Path("models/model.safetensors")
TABLES = (
    "scores",
    "per_label",
    "slices",
    "predictions",
    "label_errors",
    "pr_curve",
    "cooccurrence",
)


def main() -> None:
    """Evaluate the model, write the report and record the scores in MLflow."""
    timings = Timings()
    params = read_params(EvaluationParams)
    timings.end("imports")
    datasets = read_datasets(Path("data/images.npy"), MANIFEST, Path("data/splits.csv"))
    params.evaluate.list_targets(datasets["train"].labels)  # refuse unknown labels early
    network, metadata = load_model(MODEL)
    history = pd.read_csv("reports/train/history.csv")
    device = pick_device()
    network.to(device)
    keep_freed_memory()
    out_of_fold = np.load("models/out_of_fold.npy")  # empty if the model is no linear probe
    judged = ("test",) if len(out_of_fold) else ("val", "test")
    splits = [split for split in judged if len(datasets[split])]
    layers, head = split_network(network, metadata.spec)
    if metadata.spec.frozen:
        cached = read_features(Path("data/features.npy"), layers, datasets["val"].images)
        features = {split: replace(photos, images=cached) for split, photos in datasets.items()}
    else:
        features = {split: compute_features(layers, datasets[split], device) for split in splits}
    logits = {split: predict_logits(head, features[split], device) for split in splits}
    familiarity = rate_photos(load_familiarity(MODEL), metadata.spec, datasets, features)
    timings.end("inference")

    result = evaluate(
        datasets,
        logits,
        read_kept(MANIFEST),
        params.evaluate,
        params.seed,
        out_of_fold if len(out_of_fold) else None,
        familiarity,
    )
    scores = headline(result.tables["scores"], result.evaluated_on)
    write_json(REPORTS / "metrics.json", scores)
    write_json(REPORTS / "thresholds.json", operating_point(result, metadata.content_key))
    for name in TABLES:
        write_table(REPORTS / f"{name}.csv", escape_spreadsheet_cells(result.tables[name]))
    timings.end("scores")

    galleries = build_galleries(network, device, result)
    unfamiliar = list_least_familiar(result)
    timings.end("galleries")
    training = Training(metadata.content_key, read_values(), splits=describe_splits(datasets))
    tags = training.all_tags
    facts = {
        "Dataset": tags[DATASET_TAG],
        "Photos": tags[PHOTOS_TAG],
        "Recipe": tags[RECIPE_TAG] if params.recipe else "",
        "Seed": params.seed,
        "Commit": describe_commit(Path()),
    }
    figures = draw_figures(result, history, REPORTS / "figures")
    origin = describe_origin(metadata)
    write_report(REPORTS / "report.html", result, figures, galleries, origin, facts, unfamiliar)
    timings.end("figures")

    record_evaluation(connect(), training, history, scores, REPORTS)
    timings.end("MLflow")
    print(f"evaluated in {timings}")


if __name__ == "__main__":
    run(main)
