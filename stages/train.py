"""Train: images, features, manifest, splits, stats -> models/, reports/train/."""

from collections.abc import Mapping
from dataclasses import asdict, replace
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
from phototag.metrics.metrics import kept_epoch
from phototag.network import distributed, features, model
from phototag.network.params import uses_cached_features
from phototag.network.weights import DRAWN, Metadata, save_model
from phototag.tracking.records import DataInput
from phototag.tracking.store import connect
from phototag.tracking.training import Stopped, record_training
from phototag.training import solver
from phototag.training.checkpoint import avoid_longer, checkpoint_path, discard_checkpoint
from phototag.training.key import state_key, training_key
from phototag.training.loop import Trained, Watch, fit, score_epoch, solve_head
from phototag.training.params import TrainingParams

from . import run

IMAGES, MANIFEST, SPLITS, STATS = INPUTS = tuple(
    map(Path, ("data/images.npy", "data/manifest.csv", "data/splits.csv", "data/stats.json"))
)
FEATURES = Path("data/features.npy")


def main() -> None:
    """Run the stage."""
    params = read_params(TrainingParams)
    if distributed.relaunch(params.train.devices, params.train.num_nodes):
        return
    with distributed.report_failure():
        trained = train_network(params)
        if distributed.rank() == 0:
            discard_checkpoint(trained.checkpoint)


def train_network(
    params: TrainingParams, watch: Watch = iter, tags: Mapping[str, str] | None = None
) -> Trained:
    """Train in this process, alone or as one of several, and write the outputs.

    Args:
        params: All of params.yaml.
        watch: Is given the epochs, and passes them on; what it raises ends the training.
        tags: What else the MLflow run is told.
    """
    datasets = dataset.read_datasets(IMAGES, MANIFEST, SPLITS)
    train, val = datasets["train"], datasets["val"]
    stats, size = read_json(STATS), train.images.shape[1]

    device = distributed.join()
    torch.manual_seed(params.seed)
    network = model.build_model(params.model, len(train.labels), size, stats["mean"], stats["std"])
    prior = torch.from_numpy(label_rates(train.targets)).float()
    model.initialize(network, params.model, prior)
    network.to(device)
    learner, start = network, None
    if on_features(params):
        kept = features.read_features(FEATURES, network[:2], train.images)
        features.standardize_features(network.get_submodule("2"), kept, train.rows)
        head, known = network[2:], (replace(train, images=kept), replace(val, images=kept))
        if params.model.frozen:
            learner, (train, val) = head, known
        else:
            start = solve_head(head, *known, params)

    if params.optimizer == "lbfgs" and distributed.rank() == 0:
        print("the head is solved: lr, momentum, batch_size, schedule and warmup do not count")
    inputs = [*INPUTS, *[FEATURES] * on_features(params), Path(__file__)]
    described = params.train_settings(), params.model, inputs, device
    key, state = distributed.from_first(lambda: (training_key(*described), state_key(*described)))
    place = checkpoint_path(project_root(), state)
    checkpoint = distributed.from_first(lambda: avoid_longer(place, params.epochs))
    trained = Trained(learner, val, key, checkpoint)
    resumed = checkpoint.exists()
    epochs = watch(fit(learner, train, val, params, checkpoint))
    if distributed.rank():
        keep_out_of_fold(learner, train, params, list(epochs))  # the first process records them
        return trained
    data = DataInput(str(MANIFEST), file_digest(MANIFEST)[:16], dataset.count_labels(datasets))
    told = tag_features(params) | dict(tags or {})
    try:
        history = record_training(
            connect(), key, read_values(), map(asdict, epochs), data, resumed, told
        )
    except Stopped as stopped:
        stopped.checkpoint = checkpoint
        raise

    # A name to compare with, no file that is read here.
    is_drawn = Path(params.data.raw) == Path("data", "sample")
    best = kept_epoch(history)
    if start and score_epoch(best, params) < score_epoch(asdict(start), params):
        print(
            "note: the head alone, over the backbone as it came, had a val loss of "
            f"{start.val_loss:.4f} and a mAP of {start.mAP:.4f}; the epoch that is kept is worse, "
            f"{best['val_loss']:.4f} and {best['mAP']:.4f}: train more gently (a lower lr, "
            "train.ema, augment.mixup), or freeze the backbone (model.freeze, optimizer lbfgs)"
        )
    metadata = Metadata(
        labels=train.labels,
        size=size,
        mean=stats["mean"],
        std=stats["std"],
        model=params.model.model_dump(mode="json"),
        content_key=key,
        epoch=best["epoch"],
        val_loss=best["val_loss"],
        num_photos=len(train),
        source=DRAWN if is_drawn else params.data.raw,
    )
    save_model(Path("models/model.safetensors"), network, metadata)
    judged = {"val_mAP": best["mAP"], "val_f1_macro": best["f1_macro"]}
    result = {"content_key": key, "epoch": best["epoch"], "val_loss": best["val_loss"]} | judged
    write_json(Path("reports/train/training.json"), result)
    with replace_file(Path("reports/train/history.csv")) as temporary:
        # Speed differs from run to run; without it, equal inputs give equal bytes.
        table = pd.DataFrame(history).drop(columns="images_per_second")
        table.to_csv(temporary, index=False, lineterminator="\n")
    keep_out_of_fold(learner, train, params, history)
    return trained


def on_features(params: TrainingParams) -> bool:
    """Whether the head learns from kept features, at first or throughout."""
    model = params.model
    return uses_cached_features(
        model.name, model.weights, model.freeze, params.finetune.linear_probe_first
    )


def keep_out_of_fold(
    head: nn.Module, train: dataset.Dataset, params: TrainingParams, history: list[Any]
) -> None:
    """Keep what heads say of train's photos that had not seen them, where heads are solved."""
    logits = np.zeros((0, 0), np.float32)
    if params.optimizer == "lbfgs":
        kept = distributed.broadcast(kept_epoch(history)["epoch"] if distributed.rank() == 0 else 0)
        logits = solver.predict_out_of_fold(head, train, params, kept)
    if distributed.rank() == 0:
        with replace_file(Path("models/out_of_fold.npy")) as temporary:
            np.save(temporary, logits)


def tag_features(params: TrainingParams) -> dict[str, str]:
    """Tell the run of what its features are, and how long they took where they were computed."""
    if not on_features(params):
        return {}
    pace = features.read_pace(project_root() / ".phototag" / "features", FEATURES)
    seconds = f"{pace.seconds:.1f}" if pace else "from DVC's cache"
    return {"backbone": params.model.name, "features_seconds": seconds}


if __name__ == "__main__":
    run(main)
