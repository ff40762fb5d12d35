"""Records of a training run: one per epoch, or one per step of a linear probe.

A record is a row of reports/train/history.csv. Its values are also metrics of the MLflow run:

- `epoch` or `step`: Number of the epoch, or of the linear probe step, counted from 1.
- `l2`: L2 strength of the step; only in records of a linear probe. The other values of the record
  are those of the head in which each label has its best strength so far.
- `train_loss`: Mean training loss in nats, without the L2 penalty.
- `val_loss`: Mean binary cross entropy on val in nats; for a linear probe, on train and val, out of
  fold.
- `f1_micro`, `f1_macro`: F1 on the same photos at threshold 0.5.
- `mAP`: Mean average precision on the same photos.
- `lr`: Learning rate of the head at the last step of the epoch; only in records of epochs.
- `images_per_second`: Training speed; only in records of epochs, and not in history.csv.
- `best_epoch` or `best_step`: Number of the best epoch or step so far.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from phototag.dataset.dataset import Dataset
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import binary_cross_entropy
from phototag.metrics.ranking import mean_average_precision
from phototag.network.distributed import run_on_first
from phototag.network.inference import predict_logits

Record = dict[str, Any]
Watch = Callable[[Iterator[Record]], Iterator[Record]]  # yields records; stops training by raising


@dataclass(frozen=True)
class Trained:
    """Result of a training run.

    Attributes:
        learner: Trained module with the best weights: the network, or only its head.
        val: Photos on which the model was selected, as input of `learner`: photos if it is the
            network, features if a head. They are the photos of val, and those of train too if the
            model is a linear probe.
        key: Content key of the training.
        checkpoint: Checkpoint file of the training.
        out_of_fold: Out-of-fold logits of `val` if the model is a linear probe.
    """

    learner: nn.Module
    val: Dataset
    key: str
    checkpoint: Path
    out_of_fold: np.ndarray | None = None


def score_val(model: nn.Module, val: Dataset, device: torch.device) -> dict[str, float]:
    """Return the metrics on val that each record contains, computed by the first process."""
    return score_logits(val.targets, predict_logits(model, val, device))


def score_logits(targets: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Return the metrics of logits, computed by the first process."""
    return run_on_first(
        lambda: {
            "val_loss": binary_cross_entropy(targets, logits),
            "f1_micro": f1_score(targets, logits >= 0, "micro"),
            "f1_macro": f1_score(targets, logits >= 0, "macro"),
            "mAP": mean_average_precision(targets, logits),
        }
    )
