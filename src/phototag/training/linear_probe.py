"""The linear probe: a head on cached features, fitted with L-BFGS for decreasing L2 strengths."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from tqdm import tqdm

from phototag.dataset.dataset import Dataset, move_to_device, read_batch, take_photos
from phototag.dataset.folds import assign_folds
from phototag.dataset.targets import is_known, label_rates
from phototag.metrics.selection import best_record
from phototag.network import distributed
from phototag.network.inference import predict_logits
from phototag.network.model import find_head
from phototag.network.runtime import keep_freed_memory
from phototag.training.checkpoint import History
from phototag.training.losses import Loss, training_loss
from phototag.training.params import TrainingParams
from phototag.training.records import Record, score_val

STEPS_PER_DECADE = 4  # number of steps in which the L2 strength decreases by a factor of 10
ITERATIONS = 100  # largest number of L-BFGS iterations per L2 strength
CHUNK = 4096  # number of photos per matrix product
# If num_photos * num_weights is at most this value, only half of the threads are used. The threads
# wait for each other after each matrix product. For small products, these waits dominate: when one
# thread shared its core with another program, a fit took ten times as long.
SMALL = 100_000_000
# Settings of the linear probe before fine-tuning.
FIRST_L2, MAX_STEPS, PATIENCE = 0.1, 16, 3


def fit_linear_probe(
    head: nn.Module,
    train: Dataset,
    val: Dataset,
    params: TrainingParams,
    checkpoint: Path | None = None,
) -> Iterator[Record]:
    """Fit the head for a sequence of decreasing L2 strengths, and yield one record per strength.

    Each step divides the strength by 10^(1/4) and starts from the weights of the previous step.
    `weight_decay` is the first strength, and `epochs` the largest number of steps. After the last
    step, the head has the weights of the best step (see `metrics.selection`).

    `head` consists of `Standardize` and a linear layer, `build_model(...)[2:]`, and is fitted on
    its device. `train` and `val` contain cached features. `checkpoint` is used as in `fit`.

    Raises:
        InputError: The checkpoint is damaged or could not be written.
    """
    device = next(head.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    loss = training_loss(train, params, device)
    history = History(checkpoint, {"model": head}, params)
    yield from history.records
    train, val = move_to_device(train, device), move_to_device(val, device)
    bar = tqdm(
        total=params.epochs,
        initial=len(history.records),
        desc="linear probe",
        disable=True if distributed.rank() else None,
    )
    for step in history.remaining():
        l2 = float(params.weight_decay * 10 ** (-(step - 1) / STEPS_PER_DECADE))
        train_loss = minimize_loss(head, loss, train, l2)
        # Use the same weights in all processes, because different processors round differently.
        distributed.broadcast_tensors(head.state_dict().values())
        scores = score_val(head, val, device)
        record = {"step": step, "l2": l2, "train_loss": train_loss, **scores}
        bar.update()
        bar.set_postfix(l2=f"{l2:.2g}", val=f"{record['val_loss']:.4f}")
        yield history.add(record, head)
    bar.close()
    head.load_state_dict(history.best_weights)


def start_from_linear_probe(
    head: nn.Module, train: Dataset, val: Dataset, params: TrainingParams
) -> None:
    """Fit the head on the cached features of pretrained backbones, before fine-tuning.

    This is the first half of LP-FT (linear probe, then fine-tuning; Kumar et al., 2022). If
    fine-tuning started with an unfitted head, its gradients would distort the backbone features.
    """
    changes = {
        "weight_decay": FIRST_L2,
        "epochs": MAX_STEPS,
        "train": params.train.model_copy(update={"early_stopping": PATIENCE}),
    }
    best = best_record(list(fit_linear_probe(head, train, val, params.model_copy(update=changes))))
    tqdm.write(
        f"linear probe before fine-tuning: L2 {best['l2']:.2g}, val loss {best['val_loss']:.4f}",
        file=sys.stderr,
    )


def predict_out_of_fold(
    head: nn.Module, train: Dataset, params: TrainingParams, l2: float
) -> np.ndarray:
    """Predict each training photo with a head fitted to other photos (Stone, 1974).

    All photos of a group (an album, or copies of one photo) are in the same fold. For each fold, a
    new head is fitted to the other folds. It starts from weights that predict the label frequencies
    of these folds. The weights of `head` are not used, because they were fitted to all folds. `l2`
    is the L2 strength of the best step.

    Returns:
        Logits, float32 [num_photos, num_labels].
    """
    folds = assign_folds(train, params.seed)
    logits = np.zeros(train.targets.shape, np.float32)
    for fold in np.unique(folds):
        fitted, left_out = copy.deepcopy(head), np.flatnonzero(folds == fold)
        seen = take_photos(train, np.flatnonzero(folds != fold))
        linear = find_head(fitted)
        device = linear.weight.device
        rates = torch.from_numpy(label_rates(seen.targets)).float().to(device)
        # The logits of frequencies 0 and 1 are infinite. Limit such a frequency as if half a photo
        # had the opposite target.
        half = torch.from_numpy(1 / (2 * is_known(seen.targets).sum(axis=0) + 2)).to(rates)
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.copy_(rates.clamp(half, 1 - half).logit())
        minimize_loss(fitted, training_loss(seen, params, device), seen, l2)
        logits[left_out] = predict_logits(fitted, take_photos(train, left_out), device)
    return logits


def minimize_loss(head: nn.Module, loss: Loss, train: Dataset, l2: float) -> float:
    """Minimise `mean_loss + l2 / 2 * sum(weights ** 2)`, and return the final mean loss.

    The optimizer is L-BFGS with a line search (Liu and Nocedal, 1989) on the whole train split.
    Biases are not penalised, so that the head can predict low probabilities for rare labels. The
    mean is over all known targets. If there are several processes, their gradients are summed.
    """
    head.train()
    optimizer = torch.optim.LBFGS(
        head.parameters(),
        max_iter=ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )
    standardize, *layers = head.children()
    linear = nn.Sequential(*layers)
    device = next(head.parameters()).device
    num_known = max(int(is_known(train.targets).sum()), 1)

    def read() -> Iterator[tuple[Tensor, Tensor]]:
        own = distributed.local_share(np.arange(len(train)))
        for positions in np.array_split(own, range(CHUNK, len(own), CHUNK)):
            features, targets = read_batch(train, positions, device)
            yield standardize(features), targets

    # Keep the features in memory if they fit, because L-BFGS reads them up to 125 times.
    fits = len(train) * train.images[:1].nbytes < psutil.virtual_memory().total / 4
    held = list(read()) if fits else None

    def total_loss(backward: bool) -> Tensor:
        total = torch.zeros((), device=device)
        for features, targets in held or read():
            part = loss(linear(features), targets).sum() / num_known
            if backward:
                torch.autograd.backward(part)
            total += part.detach()
        return distributed.sum_over_processes(total)

    def evaluate() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        total = total_loss(backward=True)
        for weight in head.parameters():
            # In a process without photos, the gradient is None. It must still join the sum.
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = distributed.sum_over_processes(gradient)
            if weight.ndim > 1:
                weight.grad.add_(weight.detach(), alpha=l2)
                total += l2 / 2 * weight.detach().square().sum()
        return total

    with _limit_threads(len(train) * sum(weight.numel() for weight in head.parameters())):
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return float(total_loss(backward=False))


@contextmanager
def _limit_threads(work: int) -> Iterator[None]:
    """Use only half of the threads for small matrix products (see `SMALL`)."""
    threads = torch.get_num_threads()
    if work <= SMALL:
        torch.set_num_threads(max(threads // 2, 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
