"""The training loop. It knows nothing of MLflow or DVC."""

import copy
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from phototag.dataset import Dataset, iter_batches
from phototag.errors import InputError
from phototag.metrics import binary_cross_entropy, f1_score

Batches = Iterable[tuple[Tensor, Tensor]]

EVAL_BATCH = 256  # photos: forward only, so memory allows more than in training
MAX_POS_WEIGHT = 100.0  # a label on 1 photo in 1 000 would otherwise drown all others


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training gave; F1 is at threshold 0.5 on val, losses are mean BCE."""

    epoch: int
    train_loss: float
    val_loss: float
    f1_micro: float
    f1_macro: float
    lr: float
    images_per_second: float


def pick_device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions and products; weights and loss stay in float32.

    `auto` takes bfloat16 only where the processor computes in it: elsewhere it is emulated, slower.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        native = any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def build_optimizer(
    model: nn.Module, name: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build adam, adagrad or sgd (momentum 0.9); weight decay is L2, added to the gradient."""
    parameters = list(model.parameters())
    match name:
        case "adam":
            return torch.optim.Adam(parameters, lr, weight_decay=weight_decay, fused=True)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(
                parameters, lr, momentum=0.9, weight_decay=weight_decay, fused=True
            )
        case _:
            raise InputError(f"optimizer: {name!r} is not one of adam, adagrad, sgd")


def positive_weights(targets: np.ndarray) -> Tensor:
    """Return negatives over positives of each label, float32 [num_labels], at most 100."""
    positives = targets.sum(axis=0)
    ratio = (len(targets) - positives) / np.maximum(positives, 1)
    return torch.from_numpy(ratio.clip(max=MAX_POS_WEIGHT)).float()


def train_one_epoch(
    model: nn.Module,
    batches: Batches,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype,
) -> float:
    """Train on every batch once and return the mean loss over photos."""
    model.train()
    total: Tensor | float = 0.0
    count = 0
    for images, targets in batches:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(images)
        loss = criterion(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        # Added up on the device: reading a value every step would make the host wait for it.
        total = total + loss.detach() * len(images)
        count += len(images)
    return float(total) / count


@torch.inference_mode()
def predict_logits(model: nn.Module, dataset: Dataset, device: torch.device) -> np.ndarray:
    """Compute logits in float32, so that every reader of the model gets the same scores.

    Returns:
        float32 [num_photos, num_labels].
    """
    model.eval()
    if len(dataset) == 0:
        return np.zeros(dataset.targets.shape, np.float32)
    batches = iter_batches(dataset, EVAL_BATCH, device)
    return torch.cat([model(images) for images, _ in batches]).cpu().numpy()


def fit(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    dtype: torch.dtype,
    pos_weight: Tensor | None = None,
) -> Iterator[Epoch]:
    """Train, yielding one record an epoch; afterwards the model holds the best epoch's weights.

    Best is the lowest val loss (unweighted, so that runs with and without `pos_weight` compare).
    Each epoch is shuffled by a generator of its own, drawn from the seed and the epoch's number.

    Args:
        model: On the device to train on.
        train: Photos to learn from.
        val: Photos to choose the best epoch by.
        optimizer: Over the model's parameters.
        epochs: How often to go over `train`.
        batch_size: Photos a step.
        seed: Of the order of the photos.
        dtype: Of convolutions and products, see `pick_dtype`.
        pos_weight: Weight of each label's positives, float32 [num_labels].

    Raises:
        FloatingPointError: The loss is not finite.
    """
    device = next(model.parameters()).device
    criterion = nn.BCEWithLogitsLoss(
        pos_weight=None if pos_weight is None else pos_weight.to(device)
    )
    best_loss, best_weights = float("inf"), model.state_dict()
    bar = tqdm(total=epochs * len(train), desc="train", unit="image", disable=None)
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        batches = iter_batches(train, batch_size, device, np.random.default_rng([seed, epoch]))
        train_loss = train_one_epoch(model, _count(batches, bar), criterion, optimizer, dtype)
        elapsed = time.perf_counter() - start

        logits = predict_logits(model, val, device)
        val_loss = binary_cross_entropy(val.targets, logits)
        if not np.isfinite([train_loss, val_loss]).all():
            raise FloatingPointError(
                f"the loss is not finite in epoch {epoch} (train {train_loss}, val {val_loss}): "
                "a lower lr usually mends it"
            )
        if val_loss < best_loss:
            best_loss, best_weights = val_loss, copy.deepcopy(model.state_dict())
        predicted = logits >= 0
        f1_micro = f1_score(val.targets, predicted, "micro")
        bar.set_postfix(epoch=epoch, loss=f"{train_loss:.4f}", val=f"{val_loss:.4f}", f1=f1_micro)
        yield Epoch(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            f1_micro=f1_micro,
            f1_macro=f1_score(val.targets, predicted, "macro"),
            lr=optimizer.param_groups[0]["lr"],
            images_per_second=len(train) / elapsed,
        )
    bar.close()
    model.load_state_dict(best_weights)


def _count(batches: Batches, bar: "tqdm[NoReturn]") -> Batches:
    for images, targets in batches:
        yield images, targets
        bar.update(len(images))
