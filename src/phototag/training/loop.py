"""The training loop: `fit` loops over epochs, `train_one_epoch` loops over steps."""

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


@dataclass(frozen=True)
class Training:
    """A network with its optimizer, its loss and the other objects that training needs.

    Attributes:
        model: Network on the device to train on.
        forward: The network as training calls it: compiled if `train.compile` is true, and wrapped
            in `DistributedDataParallel` if there are several processes.
        averaged: Copy of the network with averaged weights (EMA), or None if `train.ema` is 0.
        optimizer: Optimizer of the network's parameters.
        loss: Function that maps logits and targets to one loss per photo and label.
        dtype: Dtype of convolutions and matrix products; weights and loss are float32.
        params: Params of the `train` stage.
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    averaged: nn.Module | None
    optimizer: torch.optim.Optimizer
    loss: Loss
    dtype: torch.dtype
    params: TrainingParams


def build_training(model: nn.Module, train: Dataset, params: TrainingParams) -> Training:
    """Prepare a network for training in place, and build its optimizer and loss."""
    device = next(model.parameters()).device
    synchronize_batch_norm(model, device)
    freeze_redundant_biases(model)
    forward: Callable[[Tensor], Tensor] = model
    if distributed.world_size() > 1:
        # Averages the gradients of the processes. With a static graph, layers without gradients are
        # accepted, such as those after the feature maps that `model.global_pool` pools.
        forward = DistributedDataParallel(model, static_graph=True)
    if params.train.compile:
        # This mode records CUDA graphs, which save the time to launch each kernel separately. The
        # last batch can have a different size and is compiled separately.
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
    """Return the dtype of convolutions and matrix products; weights and loss are float32.

    `auto` selects bfloat16 only if the processor supports it natively, because emulated bfloat16
    is slower than float32.
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
    """Train a network on its device and in place, and yield one record per epoch.

    After the last epoch, the network has the weights of the best epoch (see `metrics.selection`).
    All random values in an epoch (order of the photos, augmentations, dropout) depend only on the
    seed and the number of the epoch. Therefore, a training that was interrupted and resumed gives
    the same weights as an uninterrupted training.

    If there are several processes, they train the same network. All of them use the checkpoint, the
    weights and the val metrics of the first process, because their own could differ.

    After each epoch, the state is saved in the file `checkpoint`. If the file exists, its records
    are yielded first, and training resumes after them.

    Raises:
        InputError: The loss is not finite, or the checkpoint is damaged or could not be written.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    training = build_training(model, train, params)
    parts: dict[str, Any] = {"model": model, "optimizer": training.optimizer}
    if training.averaged is not None:
        parts["averaged"] = training.averaged
    evaluated = training.averaged or model  # the network that is evaluated on val and saved
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
        # Use the same weights in all processes, because different processors round differently.
        for network in (model, training.averaged):
            distributed.broadcast_tensors(network.state_dict().values() if network else ())
        record = {
            "epoch": epoch,
            "train_loss": train_loss,
            **score_val(evaluated, val, device),
            "lr": training.optimizer.param_groups[-1]["lr"],  # learning rate of the head
            "images_per_second": len(train) / elapsed,
        }
        if not math.isfinite(record["val_loss"]):
            raise InputError(_explain(epoch, f"the val loss is {record['val_loss']}"))
        bar.set_postfix(epoch=epoch, loss=f"{train_loss:.4f}", val=f"{record['val_loss']:.4f}")
        yield history.add(record, evaluated)
    bar.close()
    model.load_state_dict(history.best_weights)


def train_one_epoch(
    training: Training, train: Dataset, epoch: int, bar: "tqdm[Any] | None" = None
) -> float:
    """Train on each photo once, and return the mean loss over all known targets.

    The seed and the number of the epoch, counted from 1, determine all random values. The progress
    bar counts photos. Omit it to show no progress.

    Raises:
        InputError: The loss is not finite.
    """
    params, model = training.params, training.model
    device = next(model.parameters()).device
    seed = params.seed * 1_000_003 + epoch
    generator = torch.Generator().manual_seed(seed)
    # Each process draws different dropout masks, because it trains on different photos.
    torch.manual_seed(seed + (distributed.rank() << 48))
    order = np.random.default_rng([params.seed, epoch]).permutation(len(train))
    # If one photo is left over, add it to the last full batch, because batch norm needs several
    # values per channel.
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
        # All processes must run the network equally often. Each process therefore divides its share
        # into the same number of parts.
        count = min(params.train.accumulate, max(len(positions) // distributed.world_size(), 1))
        parts = zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
        for part, wanted in parts:
            with torch.autocast(device.type, training.dtype, training.dtype != torch.float32):
                logits = training.forward(part)
            share = training.loss(logits.float(), wanted).sum() / max(known, 1)
            # DistributedDataParallel averages the gradients of the processes. Multiply the loss by
            # the number of processes to get the sum instead.
            torch.autograd.backward(share * distributed.world_size())
            loss += share.detach()
        if params.train.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), params.train.clip_norm)
        training.optimizer.step()
        if training.averaged is not None:
            _average(training.averaged, model, params.train.ema, step)
        # Keep the loss on the device: if Python read its value here, it would wait for the GPU.
        losses[index] = loss * (known / num_labels)
        if bar is not None:
            bar.update(len(positions))
    losses = distributed.sum_over_processes(losses)
    return _sum_losses(losses, epoch) / (max(num_known, 1) / num_labels)


def _count_known(train: Dataset, positions: np.ndarray, mixed: bool) -> int:
    """Count the known targets of a batch; a mix of two targets is known if both are known."""
    if train.complete:
        return len(positions) * len(train.labels)
    known = is_known(train.targets[positions])
    return int((known & known[::-1] if mixed else known).sum())


def _sum_losses(losses: Tensor, epoch: int) -> float:
    total = float(losses.sum())
    if not math.isfinite(total):
        step = int(torch.isfinite(losses).logical_not().nonzero()[0]) + 1
        raise InputError(_explain(epoch, f"the loss at step {step} is not finite"))
    return total


def _explain(epoch: int, problem: str) -> str:
    return (
        f"epoch {epoch}: {problem}, probably because the learning rate is too high: lower lr, or "
        "set warmup or train.clip_norm"
    )


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Update averaged weights and batch norm statistics; the decay is lower in early steps."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
    for mean, current in zip(averaged.buffers(), model.buffers(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(current, 1 - decay)
        else:
            mean.copy_(current)
