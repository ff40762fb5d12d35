"""Train: images, manifest, splits, stats -> models/model.safetensors, reports/train/history.csv."""

import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from phototag import dataset, engine, model, tracking, weights
from phototag.files import content_key, file_digest, read_json, replace_file
from phototag.params import read_params

from . import run

INPUTS = tuple(map(Path, ("data/manifest.csv", "data/splits.csv", "data/stats.json")))
CODE = tuple(Path(module.__file__) for module in (dataset, engine, model) if module.__file__)


def main() -> None:
    """Run the stage."""
    params = read_params()
    datasets = dataset.read_datasets(Path("data/images.npy"), INPUTS[0], INPUTS[1])
    train, val = datasets["train"], datasets["val"]
    stats = read_json(INPUTS[2])

    torch.manual_seed(params.seed)
    device = engine.pick_device()
    network = model.build_model(
        params.model, len(train.labels), params.resize.size, stats["mean"], stats["std"]
    )
    if params.model.init == "he":
        model.init_he(network, torch.from_numpy(train.targets).float().mean(dim=0))
    network.to(device)
    epochs = engine.fit(
        network,
        train,
        val,
        engine.build_optimizer(network, params.optimizer, params.lr, params.weight_decay),
        epochs=params.epochs,
        batch_size=params.batch_size,
        seed=params.seed,
        dtype=engine.pick_dtype(params.precision, device),
        pos_weight=engine.positive_weights(train.targets) if params.pos_weight else None,
    )

    key = content_key(params.train_settings(), INPUTS + CODE)
    tags = {"data_fingerprint": file_digest(INPUTS[0])[:16]}
    store = tracking.connect()
    history = []
    with tracking.training_run(store, key, params.model_dump(), tags) as run_id:
        for record in map(asdict, epochs):
            history.append(record)
            tracking.log_epoch(store, run_id, record, time.time_ns() // 1_000_000)

    best = min(history, key=lambda record: record["val_loss"])
    metadata = weights.Metadata(
        labels=train.labels,
        size=params.resize.size,
        mean=stats["mean"],
        std=stats["std"],
        model=params.model.model_dump(mode="json"),
        content_key=key,
        epoch=best["epoch"],
        val_loss=best["val_loss"],
    )
    weights.save_model(Path("models/model.safetensors"), network, metadata)
    with replace_file(Path("reports/train/history.csv")) as temporary:
        # Speed differs from run to run; without it, equal inputs give equal bytes.
        table = pd.DataFrame(history).drop(columns="images_per_second")
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main)
