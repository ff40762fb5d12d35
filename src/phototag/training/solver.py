"""The head over kept features, solved instead of stepped: so few weights need no learning rate."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from phototag.dataset.dataset import Dataset, physical_memory, read_batch, take_photos
from phototag.dataset.targets import is_known, label_rates
from phototag.network import distributed
from phototag.network.inference import predict_logits
from phototag.network.model import find_head
from phototag.training.losses import Loss, build_loss, positive_weights, skip_unknown
from phototag.training.params import TrainingParams

STRENGTHS_A_DECADE = 4  # of L2: an epoch's is 10^(-1/4) of the one before
ITERATIONS = 100  # of L-BFGS an epoch, at most
CHUNK = 4096  # photos at a time
FOLDS = 5
# Photos times weights, up to which an evaluation takes milliseconds, and half the threads are used.
# All threads wait for each other after every product: one that shares its core with another program
# holds up the rest, and these waits, a few in a millisecond, made a solve ten times as long. In
# larger products they do not count.
SMALL = 100_000_000

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


def predict_out_of_fold(
    model: nn.Module, train: Dataset, params: TrainingParams, epoch: int
) -> np.ndarray:
    """Predict each photo of train by a head that has not seen it (cross-validation; Stone, 1974).

    A group (an album, copies of one photo) is in one fold. Each head starts at the prior, as the
    first one did, and is solved to the end: nothing of the left-out fold is in it.

    Args:
        model: Of `fit`; stays as it is.
        train: Features and targets of the train split.
        params: All of params.yaml.
        epoch: The one whose strength was kept.

    Returns:
        Logits, float32 [num_photos, num_labels]; without rows, where all photos are one group.
    """
    names, of_photo = np.unique(np.asarray(train.groups or train.files), return_inverse=True)
    folds = np.random.default_rng([params.seed, 5]).permutation(len(names))[of_photo] % FOLDS
    logits = np.zeros(train.targets.shape if len(names) > 1 else (0, 0), np.float32)
    for fold in range(min(FOLDS, len(names)) if len(logits) else 0):
        head, left_out = copy.deepcopy(model), np.flatnonzero(folds == fold)
        seen = take_photos(train, np.flatnonzero(folds != fold))
        linear = find_head(head)
        device = linear.weight.device
        rates = torch.from_numpy(label_rates(seen.targets)).float().to(device)
        # A label on none or all of them counts as on half a photo more, or less.
        half = torch.from_numpy(1 / (2 * is_known(seen.targets).sum(axis=0) + 2)).to(rates)
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.copy_(rates.clamp(half, 1 - half).logit())
        weights = positive_weights(seen.targets).to(device) if params.pos_weight else None
        loss = build_loss(params.train.loss, params.train.label_smoothing, weights)
        loss = loss if seen.complete else skip_unknown(loss)
        strength = strength_of(params.weight_decay, epoch)
        solve_epoch(head, loss, build_solver(head), seen, strength)
        logits[left_out] = predict_logits(head, take_photos(train, left_out), device)
    return logits


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
        The mean loss over photos and labels that are known, where it ends, without L2.
    """
    model.train()
    optimizer.state.clear()
    standardize, *layers = model.children()
    head = nn.Sequential(*layers)
    device = next(model.parameters()).device
    num_known = max(int(is_known(train.targets).sum()), 1)

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
            part = loss(head(features), targets).sum() / num_known
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

    with _spare_threads(len(train) * sum(weight.numel() for weight in model.parameters())):
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return float(total_loss(backward=False))


@contextmanager
def _spare_threads(work: int) -> Iterator[None]:
    """Compute with half of the threads where there is little to do, see `SMALL`."""
    threads = torch.get_num_threads()
    if work <= SMALL:
        torch.set_num_threads(max(threads // 2, 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
