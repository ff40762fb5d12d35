"""Records of a training: one per epoch, or one per step of a linear probe.

Each record is a row of reports/train/history.csv, and its values are metrics of the MLflow run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from phototag.dataset.dataset import Dataset
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import binary_cross_entropy
from phototag.metrics.ranking import mean_average_precision
from phototag.network.inference import predict_logits


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean training loss, in nats.
        val_loss: Mean binary cross entropy on val, in nats.
        f1_micro: Micro F1 on val at threshold 0.5.
        f1_macro: Macro F1 on val at threshold 0.5.
        mAP: Mean average precision on val.
        lr: Learning rate of the head at the last step.
        best_epoch: Best epoch so far.
        images_per_second: Training speed.
    """

    epoch: int
    train_loss: float
    val_loss: float
    f1_micro: float
    f1_macro: float
    mAP: float  # noqa: N815 (the usual spelling)
    lr: float
    best_epoch: int
    images_per_second: float

    @property
    def number(self) -> int:
        """Number of the epoch, from 1."""
        return self.epoch


@dataclass(frozen=True)
class ProbeStep:
    """Results of one L2 strength of a linear probe.

    Attributes:
        step: Number of the strength, from 1; the first is the strongest.
        l2: L2 strength.
        train_loss: Mean training loss, in nats, without the L2 penalty.
        val_loss: Mean binary cross entropy on val, in nats.
        f1_micro: Micro F1 on val at threshold 0.5.
        f1_macro: Macro F1 on val at threshold 0.5.
        mAP: Mean average precision on val.
        best_step: Best step so far.
    """

    step: int
    l2: float
    train_loss: float
    val_loss: float
    f1_micro: float
    f1_macro: float
    mAP: float  # noqa: N815 (the usual spelling)
    best_step: int

    @property
    def number(self) -> int:
        """Number of the step, from 1."""
        return self.step


Record = Epoch | ProbeStep
Watch = Callable[[Iterator[Record]], Iterator[Record]]  # passes records on, or raises to stop


@dataclass(frozen=True)
class Trained:
    """Result of the train stage in memory.

    Attributes:
        learner: Trained module with the best weights: the network, or its head.
        val: Input of the learner for val: photos or cached features.
        key: Content key of the training.
        checkpoint: File of the last state.
    """

    learner: nn.Module
    val: Dataset
    key: str
    checkpoint: Path


def score_val(model: nn.Module, val: Dataset, device: torch.device) -> dict[str, float]:
    """Return the metrics on val that every record holds."""
    logits = predict_logits(model, val, device)
    return {
        "val_loss": binary_cross_entropy(val.targets, logits),
        "f1_micro": f1_score(val.targets, logits >= 0, "micro"),
        "f1_macro": f1_score(val.targets, logits >= 0, "macro"),
        "mAP": mean_average_precision(val.targets, logits),
    }
