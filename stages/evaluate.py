"""Evaluate: model, images, manifest, splits, history -> reports/evaluate/."""

from pathlib import Path

import pandas as pd

from phototag import evaluation, report, tracking
from phototag.dataset import read_datasets
from phototag.files import replace_file, write_json
from phototag.inference import pick_device, predict_logits
from phototag.params import read_params
from phototag.thresholds import choose_thresholds
from phototag.weights import load_model

from . import run

REPORTS = Path("reports/evaluate")


def main() -> None:
    """Run the stage."""
    params = read_params()
    datasets = read_datasets(
        Path("data/images.npy"), Path("data/manifest.csv"), Path("data/splits.csv")
    )
    network, metadata = load_model(Path("models/model.safetensors"))
    history = pd.read_csv("reports/train/history.csv")
    device = pick_device()
    network.to(device)

    held_out = [split for split in ("val", "test") if len(datasets[split])]
    logits = {split: predict_logits(network, datasets[split], device) for split in held_out}
    val = datasets["val"]
    thresholds = choose_thresholds(
        val.targets, evaluation.sigmoid(logits["val"]), params.evaluate.min_positives
    )
    split = evaluation.judged_split(datasets)
    judged = datasets[split]
    scores = evaluation.score(judged.targets, logits[split], thresholds)
    tables = {
        "per_label": evaluation.tabulate_labels(
            metadata.labels, judged.targets, logits[split], thresholds
        ),
        "predictions": evaluation.tabulate_predictions(datasets, logits, thresholds),
        "pr_curve": evaluation.tabulate_curve(judged.targets, logits[split]),
    }

    write_json(REPORTS / "metrics.json", scores)
    write_json(REPORTS / "thresholds.json", dict(zip(metadata.labels, thresholds, strict=True)))
    for name, table in tables.items():
        with replace_file(REPORTS / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
    report.write_report(
        REPORTS / "report.html",
        REPORTS / "figures",
        split,
        scores,
        tables["per_label"],
        history,
        judged,
        logits[split],
    )

    store = tracking.connect()
    run_id = tracking.find_or_rebuild_run(store, metadata.content_key, params.model_dump(), history)
    tracking.log_evaluation(store, run_id, scores, REPORTS)


if __name__ == "__main__":
    run(main)
