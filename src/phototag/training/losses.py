"""Losses for multi-label classification, with one value per photo and label."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import is_known
from phototag.training.params import TrainingParams

MAX_POS_WEIGHT = 100.0  # prevents a very rare label from dominating the loss

Loss = Callable[[Tensor, Tensor], Tensor]  # f(logits, targets) = losses, all [batch, num_labels]


def training_loss(train: Dataset, params: TrainingParams, device: torch.device) -> Loss:
    """Build the loss that `params` specifies; the loss of unknown targets (NaN) is 0."""
    weights = None
    if params.pos_weight:
        counts = ((train.targets > 0).sum(axis=0), is_known(train.targets).sum(axis=0))
        weights = torch.from_numpy(positive_weights(*counts)).float().to(device)
    loss = build_loss(params.train.loss, params.train.label_smoothing, weights)
    return loss if train.complete else skip_unknown(loss)


def positive_weights(positives: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return `negatives / positives`, at most 100, from numbers of positives and known targets."""
    return np.asarray((known - positives) / np.maximum(positives, 1)).clip(max=MAX_POS_WEIGHT)


def build_loss(name: str, label_smoothing: float, pos_weight: Tensor | None) -> Loss:
    """Return a function that maps logits and targets to losses in nats, float [batch, num_labels].

    Args:
        name: Name of the loss: `bce`, `focal` or `asymmetric`.
        label_smoothing: Smoothing `x`. Target 0 becomes `x / 2`, and target 1 becomes `1 - x / 2`.
            It must be 0 for `asymmetric`.
        pos_weight: Weight of each label's positives, float [num_labels], or None. It must be None
            for losses other than `bce`.
    """
    entropy = partial(functional.binary_cross_entropy_with_logits, reduction="none")
    losses: dict[str, Loss] = {
        "bce": partial(entropy, pos_weight=pos_weight),
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
        # Weight only true positives. A smoothed negative has the target x / 2. If it were weighted,
        # it would dominate: with weight 100 and x = 0.1, clear negatives got probability 0.84.
        negative, positive = (
            entropy(logits, torch.full_like(logits, target)) for target in (low, high)
        )
        return (1 - targets) * negative + targets * pos_weight * positive

    return smoothed


def loss_slopes(name: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the derivative of each loss with respect to its logit; arguments as in `build_loss`.

    Targets may be smoothed.
    """
    if name == "bce":
        return logits.sigmoid() - targets
    logits = logits.detach().requires_grad_()
    with torch.enable_grad():
        total = build_loss(name, 0, None)(logits, targets).sum()
    return torch.autograd.grad(total, logits)[0]


def skip_unknown(loss: Loss) -> Loss:
    """Wrap a loss so that its value and its gradient are 0 for unknown targets (NaN)."""

    def known_only(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.where(targets.isnan(), 0.0, loss(logits, targets.nan_to_num()))

    return known_only


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Compute the focal loss: `cross_entropy * abs(error) ** gamma` (Lin et al., 2017)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (targets - logits.sigmoid()).abs() ** gamma * entropy


def asymmetric_loss(
    logits: Tensor, targets: Tensor, gamma: float = 4.0, margin: float = 0.05
) -> Tensor:
    """Compute the asymmetric loss, which reduces the weight of easy negatives.

    A negative has loss 0 if its predicted probability is below `margin` (Ridnik et al., 2021).
    """
    shifted = (logits.sigmoid() - margin).clamp(min=0)
    positive = functional.softplus(-logits)
    negative = -torch.log1p(-shifted.clamp(max=1 - 1e-6)) * shifted**gamma
    return targets * positive + (1 - targets) * negative
