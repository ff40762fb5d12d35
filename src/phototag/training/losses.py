"""Losses of multi-label classification, for each photo and label."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from phototag.base.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(name: str, label_smoothing: float, pos_weight: Tensor | None) -> Loss:
    """Return a function of logits and targets, float [batch, num_labels] each.

    It gives the loss of every entry, float [batch, num_labels], in nats.

    Args:
        name: bce | focal | asymmetric.
        label_smoothing: x makes targets of x / 2 and 1 - x / 2, 0..1.
        pos_weight: Of each label's positives, float [num_labels]; goes with bce alone.

    Raises:
        InputError: `pos_weight` is asked for together with another loss.
    """
    if pos_weight is not None and name != "bce":
        raise InputError(f"pos_weight goes with loss bce, not with {name}: switch one of them off")
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
    return lambda logits, targets: loss(
        logits, targets * (1 - label_smoothing) + label_smoothing / 2
    )


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
