"""Train the network: images, features, manifest, splits, stats -> models/, reports/train/."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from phototag.base.files import file_digest, project_root, read_json, replace_file, write_json
from phototag.base.params import read_params, read_values
from phototag.dataset import dataset
from phototag.dataset.targets import label_rates
from phototag.metrics.selection import best_record, step_number
from phototag.network import distributed, features, model
from phototag.network.params import uses_cached_features
from phototag.network.reference import learn_familiarity
from phototag.network.weights import SYNTHETIC, Metadata, save_model
from phototag.tracking.description import DATASET_TAG, PHOTOS_TAG
from phototag.tracking.runs import DATA_TAG, Training
from phototag.tracking.store import connect
from phototag.tracking.training import Stopped, record_training
from phototag.training.checkpoint import discard_checkpoint
from phototag.training.key import training_key
from phototag.training.linear_probe import (
    cross_validate,
    fit_linear_probe,
    predict_nested,
    start_from_linear_probe,
    strength,
)
from phototag.training.loop import fit
from phototag.training.params import TrainingParams
from phototag.training.records import Trained, Watch

from . import run

IMAGES, MANIFEST, SPLITS, STATS = INPUTS = tuple(
    map(Path, ("data/images.npy", "data/manifest.csv", "data/splits.csv", "data/stats.json"))
)
FEATURES = Path("data/features.npy")


def main() -> None:
    """Train in this process, or start one process per device and wait for all of them."""
    params = read_params(TrainingParams)
    if distributed.launch(params.train.devices, params.train.num_nodes):
        return
    with distributed.report_failure():
        trained = train_network(params)
        if distributed.rank() == 0:
            discard_checkpoint(trained.checkpoint)


def train_network(
    params: TrainingParams, watch: Watch = iter, tags: Mapping[str, str] | None = None
) -> Trained:
    """Train in this process, which may be one of several, and write the outputs.

    Args:
        params: Params of the `train` stage.
        watch: Function that receives an iterator of records and yields the same records. If
            the function raises an error, training stops.
        tags: Additional tags for the MLflow run.
    """
    datasets = dataset.read_datasets(IMAGES, MANIFEST, SPLITS)
    train, val = datasets["train"], datasets["val"]
    stats, size = read_json(STATS), train.images.shape[1]

    device = distributed.join()
    torch.manual_seed(params.seed)
    mean, std, network_size = stats["mean"], stats["std"], params.resize.size
    network = model.build_model(params.model, len(train.labels), size, mean, std, network_size)
    prior = torch.from_numpy(label_rates(train.targets)).float()
    model.initialize(network, params.model, prior)
    network.to(device)
    learner: nn.Module = network
    probes = params.optimizer == "lbfgs"
    cached = uses_cached_features(
        params.model.name,
        params.model.weights,
        params.model.freeze,
        params.finetune.linear_probe_first,
    )
    if cached:
        embedded = features.read_features(FEATURES, network[:2], train.images)
        head, inputs = network[2:], (replace(train, images=embedded), replace(val, images=embedded))
        used = dataset.join_datasets([train, val]) if probes else train
        features.standardize_features(network.get_submodule("2"), embedded, used.rows)
        if params.model.frozen:
            learner, (train, val) = head, inputs
        else:
            start_from_linear_probe(head, *inputs, params)

    files = [*INPUTS, *[FEATURES] * cached, Path(__file__)]
    key = distributed.run_on_first(
        lambda: training_key(params.train_settings(), params.model, files, device)
    )
    checkpoint = project_root() / ".phototag" / "checkpoints" / f"{key}.pt"
    resumed = checkpoint.exists()
    judged = val  # photos on which the model is selected
    if probes:
        if distributed.rank() == 0:
            print("linear probe: lr, momentum, batch_size, schedule and warmup are ignored")
        judged = dataset.join_datasets([train, val])
        learner = probe = cross_validate(head, judged, params.seed)
        records = watch(fit_linear_probe(probe, params, checkpoint))
    else:
        records = watch(fit(learner, train, val, params, checkpoint))
    if distributed.rank() == 0:
        run_tags = {DATA_TAG: file_digest(MANIFEST)[:16], **(tags or {})}
        if cached:
            run_tags["backbone"] = params.model.name
        training = Training(key, read_values(), run_tags, dataset.describe_splits(datasets))
        try:
            history = record_training(connect(), training, records, resumed)
        except Stopped:
            discard_checkpoint(checkpoint)
            raise
        best = best_record(history)
        metadata = Metadata(
            labels=train.labels,
            size=size,
            mean=mean,
            std=std,
            model=params.model.model_dump(mode="json"),
            content_key=key,
            epoch=step_number(best),
            val_loss=best["val_loss"],
            num_photos=len(judged if probes else train),
            # This stage only compares the path, and reads no file in the folder.
            source=(
                SYNTHETIC if Path(params.data.raw) == Path("data", "sample") else params.data.raw
            ),
            network_size=network_size,
        )
        steps = zip(train.labels, probe.choice.steps.tolist(), strict=True) if probes else []
        write_history(training, history, {name: strength(params, step) for name, step in steps})
    else:
        history = list(records)
    familiarity = learn_familiarity(network, params.model, train, val, device)
    out_of_fold = np.zeros((0, 0, 0), np.float32)
    if probes:
        out_of_fold = probe.logits.cpu().numpy()[None]
        if len(datasets["test"]) == 0:
            out_of_fold = np.concatenate([out_of_fold, predict_nested(probe, params)])
    if distributed.rank() == 0:
        save_model(Path("models/model.safetensors"), network, metadata, familiarity)
        with replace_file(Path("models/out_of_fold.npy")) as temporary:
            np.save(temporary, out_of_fold)
    return Trained(learner, judged, key, checkpoint, out_of_fold[0] if probes else None)


def write_history(
    training: Training, history: list[dict[str, Any]], l2: Mapping[str, float]
) -> None:
    """Write all records, the best record, and what the model was trained on, to reports/train.

    `l2` contains the L2 strengths of the labels of a linear probe, otherwise nothing.
    """
    best = best_record(history)
    inputs = {name: training.all_tags.get(name, "") for name in (DATASET_TAG, PHOTOS_TAG)}
    result = {"content_key": training.key, "epoch": step_number(best), "val_loss": best["val_loss"]}
    write_json(Path("reports/train/training.json"), inputs | result | ({"l2": l2} if l2 else {}))
    write_json(Path("reports/train/metrics.json"), {"val_loss": best["val_loss"]})
    # The speed differs between runs. Drop it, so that the same inputs result in the same bytes.
    table = pd.DataFrame(history).drop(columns="images_per_second", errors="ignore")
    with replace_file(Path("reports/train/history.csv")) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main)
