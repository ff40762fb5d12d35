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
    fit_linear_probe,
    predict_out_of_fold,
    start_from_linear_probe,
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
    learner = network
    cached = uses_cached_features(
        params.model.name,
        params.model.weights,
        params.model.freeze,
        params.finetune.linear_probe_first,
    )
    if cached:
        embedded = features.read_features(FEATURES, network[:2], train.images)
        features.standardize_features(network.get_submodule("2"), embedded, train.rows)
        head, inputs = network[2:], (replace(train, images=embedded), replace(val, images=embedded))
        if params.model.frozen:
            learner, (train, val) = head, inputs
        else:
            start_from_linear_probe(head, *inputs, params)

    probes = params.optimizer == "lbfgs"
    if probes and distributed.rank() == 0:
        print("linear probe: lr, momentum, batch_size, schedule and warmup are ignored")
    files = [*INPUTS, *[FEATURES] * cached, Path(__file__)]
    key = distributed.run_on_first(
        lambda: training_key(params.train_settings(), params.model, files, device)
    )
    checkpoint = project_root() / ".phototag" / "checkpoints" / f"{key}.pt"
    resumed = checkpoint.exists()
    records = watch((fit_linear_probe if probes else fit)(learner, train, val, params, checkpoint))
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
            num_photos=len(train),
            # This stage only compares the path, and reads no file in the folder.
            source=(
                SYNTHETIC if Path(params.data.raw) == Path("data", "sample") else params.data.raw
            ),
            network_size=network_size,
        )
        write_history(training, history)
    else:
        history = list(records)
    familiarity = learn_familiarity(network, params.model, train, val, device)
    if distributed.rank() == 0:
        save_model(Path("models/model.safetensors"), network, metadata, familiarity)
    write_out_of_fold(learner, dataset.join_datasets([train, val]), params, history)
    return Trained(learner, val, key, checkpoint)


def write_history(training: Training, history: list[dict[str, Any]]) -> None:
    """Write all records, the best record, and what the model was trained on, to reports/train."""
    best = best_record(history)
    inputs = {name: training.all_tags.get(name, "") for name in (DATASET_TAG, PHOTOS_TAG)}
    result = {"content_key": training.key, "epoch": step_number(best), "val_loss": best["val_loss"]}
    write_json(Path("reports/train/training.json"), inputs | result)
    write_json(Path("reports/train/metrics.json"), {"val_loss": best["val_loss"]})
    # The speed differs between runs. Drop it, so that the same inputs result in the same bytes.
    table = pd.DataFrame(history).drop(columns="images_per_second", errors="ignore")
    with replace_file(Path("reports/train/history.csv")) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_out_of_fold(
    head: nn.Module, photos: dataset.Dataset, params: TrainingParams, history: list[dict[str, Any]]
) -> None:
    """Write out-of-fold logits if a linear probe was trained; otherwise, write an empty array."""
    logits = np.zeros((0, 0, 0), np.float32)
    if params.optimizer == "lbfgs":
        logits = predict_out_of_fold(head, photos, params, best_record(history)["l2"])[None]
    if distributed.rank() == 0:
        with replace_file(Path("models/out_of_fold.npy")) as temporary:
            np.save(temporary, logits)


if __name__ == "__main__":
    run(main)
