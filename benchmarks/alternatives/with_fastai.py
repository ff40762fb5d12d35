"""Training of the report's network, as a user of fastai would write it."""

from pathlib import Path
from typing import Any

import pandas as pd
from fastai.callback.core import Callback
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.metrics import F1ScoreMulti
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize
from fastai.vision.data import ImageDataLoaders, imagenet_stats

from benchmarks.alternatives.network import build_network


def train(table: Path, photos: Path, epochs: int, seed: int, timer: Any) -> list[list[float]]:
    """Train, call `timer` after each epoch, and return val loss and micro F1 of each epoch."""
    set_seed(seed)
    frame = pd.read_csv(table, keep_default_na=False)
    frame["is_valid"] = frame["split"] == "val"
    loaders = ImageDataLoaders.from_df(
        frame[frame["split"] != "test"],
        photos,
        fn_col="file",
        label_col="labels",
        label_delim=";",
        valid_col="is_valid",
        bs=64,
        num_workers=2,
        item_tfms=Resize(128),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
    )
    learner = Learner(
        loaders,
        build_network(loaders.c),
        loss_func=BCEWithLogitsLossFlat(),
        metrics=F1ScoreMulti(average="micro"),
        cbs=Callback(after_epoch=timer),
    )
    learner.fit(epochs, lr=0.0005, wd=0.0002)
    return [list(map(float, values[1:])) for values in learner.recorder.values]
