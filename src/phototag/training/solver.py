"""The head over kept features, solved instead of stepped: so few weights need no learning rate."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from phototag.data.dataset import Dataset, physical_memory, read_batch
from phototag.network import distributed
from phototag.training.losses import Loss

STRENGTHS_A_DECADE = 4  # of L2: an epoch's is 10^(-1/4) of the one before
ITERATIONS = 100  # of L-BFGS an epoch, at most
CHUNK = 4096  # photos at a time

Batch = tuple[Tensor, Tensor]


def build_solver(model: nn.Module) -> torch.optim.LBFGS:
    """Build L-BFGS, with a line search, over all weights (Liu and Nocedal, 1989)."""
    return torch.optim.LBFGS(
        model.parameters(),
        max_iter=ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )


def strength_of(weight_decay: float, epoch: int) -> float:
    """Return the L2 of an epoch, counted from 1: the first has the strongest."""
    return float(weight_decay * 10 ** (-(epoch - 1) / STRENGTHS_A_DECADE))


def solve_epoch(
    model: nn.Module, loss: Loss, optimizer: torch.optim.LBFGS, train: Dataset, strength: float
) -> float:
    """Minimise mean loss + strength / 2 * the sum of squared weights, from where the model stands.

    Biases are free, so that rare labels may be rare. Whole batches and no dropout: the function
    stays the same from evaluation to evaluation, as a line search wants it. Several processes sum
    their gradients, and step alike.

    Args:
        model: Of `build_model(...)[2:]`: Standardize and linear layers, on its device.
        loss: Of every entry.
        optimizer: Of `build_solver`; what it remembers of an earlier strength is forgotten.
        train: Features and targets of the train split.
        strength: Of L2, on the loss's scale.

    Returns:
        The mean loss over photos and labels where it ends, without L2.
    """
    model.train()
    optimizer.state.clear()
    standardize, *head = model.children()
    device = next(model.parameters()).device

    def read() -> Iterator[Batch]:
        own = distributed.own_share(np.arange(len(train)))
        for positions in np.array_split(own, range(CHUNK, len(own), CHUNK)):
            features, targets = read_batch(train, positions, device)
            yield standardize(features), targets

    # Read a hundred times over: from memory, where they fit.
    held = list(read()) if len(train) * train.images[:1].nbytes < physical_memory() / 4 else None

    def total_loss(backward: bool) -> Tensor:
        total = torch.zeros((), device=device)
        for features, targets in held or read():
            logits = features
            for layer in head:
                logits = layer(logits)
            part = loss(logits, targets).sum() / (len(train) * targets.shape[1])
            if backward:
                torch.autograd.backward(part)
            total += part.detach()
        return distributed.sum_over_processes(total)

    def evaluate() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        total = total_loss(backward=True)
        for weight in model.parameters():
            # A process without photos has no gradient of its own.
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = distributed.sum_over_processes(gradient)
            if weight.ndim > 1:
                weight.grad.add_(weight.detach(), alpha=strength)
                total += strength / 2 * weight.detach().square().sum()
        return total

    optimizer.step(evaluate)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(total_loss(backward=False))
