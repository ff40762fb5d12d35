"""The training loop: `fit` trains a network epoch by epoch, `train_one_epoch` step by step."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, move_to_device, read_batch
from phototag.dataset.targets import is_known
from phototag.network import distributed
from phototag.network.runtime import keep_freed_memory
from phototag.training.augmentations import augment_batch, draw_augmentations, mix_batches
from phototag.training.batch_norm import (
    freeze_redundant_biases,
    freeze_statistics,
    synchronize_batch_norm,
)
from phototag.training.checkpoint import History
from phototag.training.losses import Loss, training_loss
from phototag.training.optimizers import build_optimizer, learning_rate
from phototag.training.params import TrainingParams
from phototag.training.records import Record, score_val


class DivergedError(InputError, FloatingPointError):
    """A loss is not finite; the message names the epoch, the step and the likely cause."""


@dataclass(frozen=True)
class Training:
    """A network and everything that trains it.

    Attributes:
        model: Network, on its device.
        forward: The network as training calls it: compiled, or wrapped to average gradients.
        averaged: Network with averaged weights (EMA), or None.
        optimizer: Optimizer of the network's parameters.
        loss: Loss of every photo and label, from logits and targets.
        dtype: Dtype of convolutions and products; weights and loss stay in float32.
        params: Params of the train stage.
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    averaged: nn.Module | None
    optimizer: torch.optim.Optimizer
    loss: Loss
    dtype: torch.dtype
    params: TrainingParams


def build_training(model: nn.Module, train: Dataset, params: TrainingParams) -> Training:
    """Prepare a network for training, in place, and build its optimizer and loss."""
    device = next(model.parameters()).device
    synchronize_batch_norm(model, device)
    freeze_redundant_biases(model)
    forward: Callable[[Tensor], Tensor] = model
    if distributed.world_size() > 1:
        forward = DistributedDataParallel(model)  # averages the gradients of the processes
    if params.train.compile:
        # CUDA graphs of forward and backward: a step of a small network is then not limited by the
        # time to launch its kernels. The last batch, of another size, is compiled separately.
        forward = torch.compile(forward, mode="reduce-overhead", dynamic=False)
    return Training(
        model=model,
        forward=forward,
        averaged=copy.deepcopy(model) if params.train.ema else None,
        optimizer=build_optimizer(model, params),
        loss=training_loss(train, params, device),
        dtype=distributed.run_on_first(lambda: pick_dtype(params.precision, device)),
        params=params,
    )


def pick_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """Return the dtype of convolutions and matrix products; weights and loss stay in float32.

    `auto` is bfloat16 only if the processor computes in it: emulation is slower than float32.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        native = any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def fit(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    params: TrainingParams,
    checkpoint: Path | None = None,
) -> Iterator[Record]:
    """Train a network and yield one record per epoch; then it holds the best epoch's weights.

    `metrics.selection` defines which epoch is the best. Everything random in an epoch (order,
    augmentations, dropout) depends on the seed and the number of the epoch only, so a training
    that resumes from a checkpoint ends with the same bytes as one that was never interrupted.

    Several processes train one model. The first one decides what could differ between machines:
    the state to resume from, the order of the photos, the scores.

    Args:
        model: Network, on the device to train on.
        train: Photos to learn from.
        val: Photos that select the best epoch.
        params: Params of the train stage.
        checkpoint: File in which the state is saved after each epoch. If it exists, its records are
            yielded first and training resumes after them.

    Raises:
        DivergedError: The loss is not finite.
        InputError: The checkpoint is damaged or cannot be written.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    training = build_training(model, train, params)
    parts: dict[str, Any] = {"model": model, "optimizer": training.optimizer}
    if training.averaged is not None:
        parts["averaged"] = training.averaged
    evaluated = training.averaged or model  # also the network whose weights are saved
    history = History(checkpoint, parts, params)
    yield from history.records

    train, val = move_to_device(train, device), move_to_device(val, device)
    bar = tqdm(
        total=params.epochs * len(train),
        initial=len(history.records) * len(train),
        desc="train",
        unit="image",
        disable=True if distributed.rank() else None,
    )
    for epoch in history.remaining():
        start = time.perf_counter()
        train_loss = train_one_epoch(training, train, epoch, bar)
        elapsed = time.perf_counter() - start
        # Different processors round differently: all processes evaluate the same weights.
        for network in (model, training.averaged):
            distributed.broadcast_tensors(network.state_dict().values() if network else ())
        record = {
            "epoch": epoch,
            "train_loss": train_loss,
            **score_val(evaluated, val, device),
            "lr": training.optimizer.param_groups[-1]["lr"],  # the head's
            "images_per_second": len(train) / elapsed,
        }
        if not math.isfinite(record["val_loss"]):
            raise DivergedError(_explain(epoch, f"the val loss is {record['val_loss']}"))
        bar.set_postfix(epoch=epoch, loss=f"{train_loss:.4f}", val=f"{record['val_loss']:.4f}")
        yield history.add(record, evaluated)
    bar.close()
    model.load_state_dict(history.best_weights)


def train_one_epoch(
    training: Training, train: Dataset, epoch: int, bar: "tqdm[Any] | None" = None
) -> float:
    """Train on every photo once, and return the mean loss over photos and known labels.

    Args:
        training: The network and everything that trains it.
        train: Photos to learn from.
        epoch: Number of the epoch, from 1; with the seed it determines everything random.
        bar: Progress bar that counts photos.

    Raises:
        DivergedError: The loss is not finite.
    """
    params, model = training.params, training.model
    device = next(model.parameters()).device
    seed = params.seed * 1_000_003 + epoch
    generator = torch.Generator().manual_seed(seed)
    # Each process draws dropout for its own photos.
    torch.manual_seed(seed + (distributed.rank() << 48))
    order = np.random.default_rng([params.seed, epoch]).permutation(len(train))
    # A last batch of one photo joins the one before: batch norm needs several values per channel.
    batches = np.array_split(order, range(params.batch_size, len(order) - 1, params.batch_size))
    num_steps, num_labels, num_known = len(batches), len(train.labels), 0
    losses = torch.zeros(num_steps, device=device)
    model.train()
    if params.model.finetuned and params.finetune.freeze_batch_norm:
        freeze_statistics(model)
    for index, positions in enumerate(batches):
        step = (epoch - 1) * num_steps + index
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate(params, step, num_steps) * group["lr_share"]
        images, targets = read_batch(train, distributed.local_share(positions), device)
        draws = draw_augmentations(params.augment, len(positions), images.shape[-1], generator)
        draws = {name: distributed.local_share(drawn) for name, drawn in draws.items()}
        if "mix" in draws:
            other = read_batch(train, distributed.local_share(positions[::-1].copy()), device)
            images, targets = mix_batches((images, targets), other, draws["mix"])
        images = augment_batch(images, draws)
        known = _count_known(train, positions, mixed="mix" in draws)
        num_known += known
        training.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=device)
        # Every process splits its share of the batch into the same number of parts.
        count = min(params.train.accumulate, max(len(positions) // distributed.world_size(), 1))
        parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for part, wanted in parts:
            with torch.autocast(device.type, training.dtype, training.dtype != torch.float32):
                logits = training.forward(part)
            share = training.loss(logits.float(), wanted).sum() / max(known, 1)
            # DistributedDataParallel averages gradients, and each process holds part of the sum.
            torch.autograd.backward(share * distributed.world_size())
            loss += share.detach()
        if params.train.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), params.train.clip_norm)
        training.optimizer.step()
        if training.averaged is not None:
            _average(training.averaged, model, params.train.ema, step)
        # The loss stays on the device: reading it would make a GPU wait for the host.
        losses[index] = loss * (known / num_labels)
        if bar is not None:
            bar.update(len(positions))
    losses = distributed.sum_over_processes(losses)
    return _sum_losses(losses, epoch) / (max(num_known, 1) / num_labels)


def _count_known(train: Dataset, positions: np.ndarray, mixed: bool) -> int:
    """Count the known targets of a batch; a mixed target is known if both of its parts are."""
    if train.complete:
        return len(positions) * len(train.labels)
    known = is_known(train.targets[positions])
    return int((known & known[::-1] if mixed else known).sum())


def _sum_losses(losses: Tensor, epoch: int) -> float:
    total = float(losses.sum())
    if not math.isfinite(total):
        step = int(torch.isfinite(losses).logical_not().nonzero()[0]) + 1
        raise DivergedError(_explain(epoch, f"the loss of step {step} is not finite"))
    return total


def _explain(epoch: int, problem: str) -> str:
    return (
        f"epoch {epoch}: {problem}; the learning rate is probably too high: lower lr, or set "
        "warmup or train.clip_norm"
    )


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Update averaged weights and batch norm statistics; faster in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
    for mean, current in zip(averaged.buffers(), model.buffers(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(current, 1 - decay)
        else:
            mean.copy_(current)
