"""Losses of multi-label classification, for each photo and label."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from phototag.base.errors import InputError
from phototag.dataset.targets import is_known

MAX_POS_WEIGHT = 100.0  # a label on 1 photo in 1 000 would otherwise drown all others

Loss = Callable[[Tensor, Tensor], Tensor]


def positive_weights(targets: np.ndarray) -> Tensor:
    """Return negatives over positives of each label, float32 [num_labels], at most 100.

    Args:
        targets: 1, 0 or `UNKNOWN`, which is neither, [num_photos, num_labels].
    """
    positives = (targets > 0).sum(axis=0)
    ratio = (is_known(targets).sum(axis=0) - positives) / np.maximum(positives, 1)
    return torch.from_numpy(ratio.clip(max=MAX_POS_WEIGHT)).float()


def build_loss(name: str, label_smoothing: float, pos_weight: Tensor | None) -> Loss:
    """Return a function of logits and targets, float [batch, num_labels] each.

    It gives the loss of every entry, float [batch, num_labels], in nats.

    Args:
        name: bce | focal | asymmetric.
        label_smoothing: x makes targets of x / 2 and 1 - x / 2, 0..1; goes with bce and focal.
        pos_weight: Of each label's positives, float [num_labels]; goes with bce alone.

    Raises:
        InputError: `pos_weight` is asked for together with another loss than bce, or smoothing
            together with asymmetric.
    """
    if pos_weight is not None and name != "bce":
        raise InputError(f"pos_weight goes with loss bce, not with {name}: switch one of them off")
    if label_smoothing and name == "asymmetric":
        # It all but drops a negative's own part, so that the smoothed x / 2 of a positive would
        # decide: at 0.1, a pure negative ended at 0.42.
        raise InputError(
            "train.label_smoothing does not go with loss asymmetric: set one of them back"
        )
    losses: dict[str, Loss] = {
        "bce": partial(
            functional.binary_cross_entropy_with_logits, pos_weight=pos_weight, reduction="none"
        ),
        "focal": focal_loss,
        "asymmetric": asymmetric_loss,
    }
    loss = losses[name]
    if not label_smoothing:
        return loss
    low, high = label_smoothing / 2, 1 - label_smoothing / 2
    if pos_weight is None:
        return lambda logits, targets: loss(logits, targets * (1 - label_smoothing) + low)

    def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
        # The weight is of a true positive. Of the x / 2 of one in every negative, it would make
        # most: at 100 and x = 0.1, a pure negative ended at 0.84.
        entropy = functional.binary_cross_entropy_with_logits
        negative, positive = (
            entropy(logits, torch.full_like(logits, target), reduction="none")
            for target in (low, high)
        )
        return (1 - targets) * negative + targets * pos_weight * positive

    return smoothed


def skip_unknown(loss: Loss) -> Loss:
    """Return the loss that is 0, and so is its gradient, where a target is not known (NaN)."""

    def known_alone(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.where(targets.isnan(), 0.0, loss(logits, targets.nan_to_num()))

    return known_alone


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Weigh each entry's cross entropy by its error to the power gamma (Lin et al. 2017)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (targets - logits.sigmoid()).abs() ** gamma * entropy


def asymmetric_loss(
    logits: Tensor, targets: Tensor, gamma: float = 4.0, margin: float = 0.05
) -> Tensor:
    """Weigh down easy negatives, and drop those under the margin (Ridnik et al. 2021)."""
    shifted = (logits.sigmoid() - margin).clamp(min=0)
    positive = functional.softplus(-logits)
    negative = -torch.log1p(-shifted.clamp(max=1 - 1e-6)) * shifted**gamma
    return targets * positive + (1 - targets) * negative
