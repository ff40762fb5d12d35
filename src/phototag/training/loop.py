"""The training loop. It knows nothing of MLflow or DVC."""

import copy
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, move_to_device, read_batch, shuffle_positions
from phototag.dataset.targets import is_known
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import binary_cross_entropy
from phototag.metrics.ranking import mean_average_precision
from phototag.network import distributed
from phototag.network.allocator import keep_freed_memory
from phototag.network.inference import predict_logits
from phototag.training.augmentations import augment_batch, draw_augmentation, mix_batches
from phototag.training.batch_norm import (
    freeze_biases,
    hide_from_compiler,
    hold_statistics,
    share_statistics,
)
from phototag.training.checkpoint import load_checkpoint, save_checkpoint
from phototag.training.losses import Loss, build_loss, positive_weights, skip_unknown
from phototag.training.optimizers import build_optimizer
from phototag.training.params import TrainingParams
from phototag.training.schedules import learning_rate
from phototag.training.solver import solve_epoch, strength_of

STRONGEST = 0.1  # L2 of a head that is solved before its backbones train on
STRENGTHS = 16  # at most, each 10^(-1/4) of the one before


class DivergedError(InputError, FloatingPointError):
    """A loss is not finite; the message names epoch, step and likely cause."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training gave.

    F1 is at threshold 0.5 on val, mAP on val too, losses are means. `kept` is the best epoch up to
    this one, whose weights are kept.
    """

    epoch: int
    train_loss: float
    val_loss: float
    f1_micro: float
    f1_macro: float
    mAP: float  # noqa: N815 (its name everywhere)
    lr: float
    kept: int
    images_per_second: float


Watch = Callable[[Iterator[Epoch]], Iterator[Epoch]]  # passes epochs on, or raises to end them


@dataclass(frozen=True)
class Trained:
    """What the train stage leaves besides its outputs.

    Attributes:
        learner: What learnt, with the best epoch's weights: the network, or its head.
        val: What it was judged by.
        key: The content key.
        checkpoint: The file of its last state.
    """

    learner: nn.Module
    val: Dataset
    key: str
    checkpoint: Path


@dataclass(frozen=True)
class Training:
    """What one training works on.

    Attributes:
        model: The network that learns, on its device.
        forward: The same, compiled; or wrapped, so that several processes average gradients.
        averaged: A copy that follows its weights slowly, or None.
        optimizer: Over the network's parameters.
        loss: Of every entry, from logits and targets.
        dtype: Of convolutions and products; weights and loss stay in float32.
        params: All of params.yaml.
    """

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    averaged: nn.Module | None
    optimizer: torch.optim.Optimizer
    loss: Loss
    dtype: torch.dtype
    params: TrainingParams

    @property
    def judged(self) -> nn.Module:
        """The network whose val loss counts, and which is kept."""
        return self.averaged or self.model


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


def fit(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    params: TrainingParams,
    checkpoint: Path | None = None,
) -> Iterator[Epoch]:
    """Train, yielding one record an epoch; afterwards the model holds the best epoch's weights.

    Which is best, `score_epoch` says. Several processes train as one: what one of them finds out
    alone (a state to go on from, the photos' order, a score, a full disk) is the first's, and all
    go by it.

    With lbfgs, an epoch solves the head for one strength of L2, from the epoch before; the best
    epoch is then the strength that suits val.

    All that is drawn in an epoch (order, augmentations, dropout) comes from the seed and the
    epoch's number: a training that goes on from a checkpoint needs no generator's state, and ends
    with the same bytes as one that was never interrupted.

    Args:
        model: On the device to train on.
        train: Photos to learn from.
        val: Photos to choose the best epoch by.
        params: All of params.yaml.
        checkpoint: Where the state is kept after each epoch. Where it is there already, its
            epochs are yielded from it, and training goes on behind them; but not where these are
            more than `params.epochs`.

    Raises:
        DivergedError: The loss is not finite; names epoch, step and likely cause.
        InputError: The checkpoint is damaged or cannot be written; or several machines have
            different params or photos.
    """
    photos = "".join(train.sha256 + val.sha256).encode()
    distributed.check_same(
        (params.train_settings(), hashlib.sha256(photos).digest()), "params or photos"
    )
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    weights = positive_weights(train.targets).to(device) if params.pos_weight else None
    loss = build_loss(params.train.loss, params.train.label_smoothing, weights)
    share_statistics(model)
    freeze_biases(model)
    training = Training(
        model=model,
        forward=wrap(model, params.train.compile),
        averaged=copy.deepcopy(model) if params.train.ema else None,
        optimizer=build_optimizer(model, params),
        loss=loss if train.complete else skip_unknown(loss),
        dtype=distributed.broadcast(pick_dtype(params.precision, device)),
        params=params,
    )
    history: list[dict[str, Any]] = []
    best_weights = copy.deepcopy(model.state_dict())
    # The first process keeps the state; on another machine there may be none.
    state = distributed.from_first(lambda: load_checkpoint(checkpoint) if checkpoint else None)
    # That of a longer training may be past this one's end.
    if state and len(state["history"]) <= params.epochs:
        history, best_weights = state["history"], state["best"]
        _restore(training, state)
        yield from (Epoch(**record) for record in history)

    first = distributed.rank() == 0
    train, val = move_to_device(train, device), move_to_device(val, device)
    bar = tqdm(
        total=params.epochs * len(train),
        initial=len(history) * len(train),
        desc="train",
        unit="image",
        disable=None if first else True,
    )
    if first:
        _tell_start()
    for epoch in range(len(history) + 1, params.epochs + 1):
        if _has_stalled(history, params.train.early_stopping):
            break
        start = time.perf_counter()
        if isinstance(training.optimizer, torch.optim.LBFGS):
            strength = strength_of(params.weight_decay, epoch)
            train_loss = solve_epoch(model, training.loss, training.optimizer, train, strength)
            bar.update(len(train))
        else:
            train_loss = train_one_epoch(training, train, epoch, bar)
        elapsed = time.perf_counter() - start

        # Processors of different kinds round differently: what is judged is what is kept.
        for network in (model, training.averaged):
            distributed.copy_first(network.state_dict().values() if network else ())
        logits = predict_logits(training.judged, val, device)
        record = distributed.broadcast(
            Epoch(
                epoch=epoch,
                train_loss=train_loss,
                val_loss=binary_cross_entropy(val.targets, logits),
                f1_micro=f1_score(val.targets, logits >= 0, "micro"),
                f1_macro=f1_score(val.targets, logits >= 0, "macro"),
                mAP=mean_average_precision(val.targets, logits),
                lr=training.optimizer.param_groups[-1]["lr"],  # the head's, where rates differ
                kept=epoch,
                images_per_second=len(train) / elapsed,
            )
        )
        if not math.isfinite(record.val_loss):
            raise DivergedError(_explain(epoch, f"the val loss is {record.val_loss}"))
        best = max([*history, asdict(record)], key=lambda each: score_epoch(each, params))
        record = replace(record, kept=best["epoch"])
        if record.kept == epoch:
            best_weights = copy.deepcopy(training.judged.state_dict())
        bar.set_postfix(
            epoch=epoch,
            loss=f"{train_loss:.4f}",
            val=f"{record.val_loss:.4f}",
            f1=record.f1_micro,
        )
        history.append(asdict(record))
        if checkpoint:
            state = {"history": history, "best": best_weights} | _snapshot(training)
            distributed.from_first(partial(save_checkpoint, checkpoint, state))
        yield record
    bar.close()
    model.load_state_dict(best_weights)


def solve_head(head: nn.Module, train: Dataset, val: Dataset, params: TrainingParams) -> Epoch:
    """Give backbones that train on a head that fits them as they came (Kumar et al., 2022).

    A head that starts from nothing sends gradients that mean nothing into the backbones, and so
    spoils what they know. The strength of its L2 is the one that suits val.

    Args:
        head: Of `build_model(...)[2:]`, on its device.
        train: Features to learn from.
        val: Features to choose the strength by.
        params: All of params.yaml.

    Returns:
        What the network is worth with which the training starts.
    """
    plain = {"early_stopping": 3, "ema": 0.0, "clip_norm": 0.0, "compile": False}
    changes = {
        "optimizer": "lbfgs",
        "weight_decay": STRONGEST,
        "epochs": STRENGTHS,
        "train": params.train.model_copy(update=plain),
        "model": params.model.model_copy(update={"freeze": True}),
    }
    epochs = list(fit(head, train, val, params.model_copy(update=changes)))
    kept = epochs[-1].kept
    tqdm.write(f"the head alone: kept strength {kept} of L2", file=sys.stderr)
    return epochs[kept - 1]


@cache
def _tell_start() -> None:
    """Tell, of the first training of a process, how long it took to begin."""
    seconds = time.time() - psutil.Process().create_time()
    print(f"the first step comes {seconds:.1f} s after the start", file=sys.stderr)


def score_epoch(record: Mapping[str, Any], params: TrainingParams) -> tuple[float, ...]:
    """Return what the best epoch has the most of.

    Plain cross entropy is minus the val loss, which is the same. Every other loss is smallest at
    probabilities that are wrong on purpose, so that the val loss rises while the network learns:
    there it is the mAP, which looks at the ranking alone; of equal ones, the lower val loss.

    Args:
        record: Of an epoch, with `val_loss` and `mAP`.
        params: All of params.yaml.
    """
    plain = params.train.loss == "bce" and not params.pos_weight
    if plain and not params.train.label_smoothing:
        return (-record["val_loss"],)
    return record["mAP"], -record["val_loss"]


def train_one_epoch(
    training: Training, train: Dataset, epoch: int, bar: "tqdm[Any] | None" = None
) -> float:
    """Train on every photo once and return the mean loss over photos and labels that are known.

    Args:
        training: The network and all that trains it.
        train: Photos to learn from.
        epoch: From 1; with the seed, it decides all that is drawn.
        bar: Progress, in photos.

    Raises:
        DivergedError: The loss is not finite.
    """
    params, model = training.params, training.model
    device = next(model.parameters()).device
    drawn = params.seed * 1_000_003 + epoch
    generator = torch.Generator().manual_seed(drawn)
    # Dropout is drawn in each process for its own photos.
    torch.manual_seed(drawn + (distributed.rank() << 48))
    # How much is shuffled at once hangs on a machine's memory.
    order = distributed.broadcast(
        shuffle_positions(train, np.random.default_rng([params.seed, epoch]))
    )
    batches = np.array_split(order, range(params.batch_size, len(order), params.batch_size))
    num_steps, num_labels, num_known = len(batches), len(train.labels), 0
    losses = torch.zeros(num_steps, device=device)
    model.train()
    if params.model.finetuned and params.finetune.freeze_batch_norm:
        hold_statistics(model)
    for index, positions in enumerate(batches):
        step = (epoch - 1) * num_steps + index
        _set_learning_rate(training, step, num_steps)
        images, targets = read_batch(train, distributed.own_share(positions), device)
        draws = draw_augmentation(params.augment, len(positions), images.shape[-1], generator)
        draws = draws.each(distributed.own_share)
        if draws.mix is not None:
            other = read_batch(train, distributed.own_share(positions[::-1].copy()), device)
            images, targets = mix_batches((images, targets), other, draws.mix)
        images = augment_batch(images, draws)
        known = _count_known(train, positions, mixed=draws.mix is not None)
        num_known += known
        training.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=device)
        for part, wanted in _split_batch(images, targets, len(positions), params.train.accumulate):
            with torch.autocast(device.type, training.dtype, training.dtype != torch.float32):
                logits = training.forward(part)
            entries = training.loss(logits.float(), wanted)
            share = entries.sum() / max(known, 1)
            # DDP averages over the processes, while each holds a part of the batch's sum.
            torch.autograd.backward(share * distributed.world_size())
            loss += share.detach()
        if params.train.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), params.train.clip_norm)
        training.optimizer.step()
        if training.averaged is not None:
            _average(training.averaged, model, params.train.ema, step)
        # Kept on the device: reading a value every step would make a GPU wait for the host.
        # Summed at once: several processes then stop at the same step.
        losses[index] = distributed.sum_over_processes(loss * (known / num_labels))
        if device.type == "cpu" and not math.isfinite(losses[index]):
            break
        if bar is not None:
            bar.update(len(positions))
    return _sum_losses(losses, epoch) / (max(num_known, 1) / num_labels)


def _count_known(train: Dataset, positions: np.ndarray, mixed: bool) -> int:
    """Count a batch's targets that are known; of mixed photos, those that are known of both."""
    if train.complete:
        return len(positions) * len(train.labels)
    known = is_known(train.targets[positions])
    return int((known & known[::-1] if mixed else known).sum())


def _split_batch(
    images: Tensor, targets: Tensor, together: int, parts: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Split a process's share of a batch; each process gets as many parts as all others."""
    parts = min(parts, max(together // distributed.world_size(), 1))
    yield from zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True)


def wrap(model: nn.Module, compiled: bool) -> Callable[[Tensor], Tensor]:
    """Return the network as training calls it: several processes average gradients.

    Args:
        model: On its device.
        compiled: Whether torch.compile is to record it.
    """
    forward = DistributedDataParallel(model) if distributed.world_size() > 1 else model
    if not compiled:
        return forward
    hide_from_compiler()
    # Records forward and backward as CUDA graphs: a step of a small network is then no longer
    # bound by the time to launch its kernels. The last, smaller batch is a recording of its own.
    return torch.compile(forward, mode="reduce-overhead", dynamic=False)


def _sum_losses(losses: Tensor, epoch: int) -> float:
    total = float(losses.sum())
    if not math.isfinite(total):
        step = int(torch.isfinite(losses).logical_not().nonzero()[0]) + 1
        raise DivergedError(_explain(epoch, f"the loss of step {step} is not finite"))
    return total


def _explain(epoch: int, what: str) -> str:
    return (
        f"epoch {epoch}: {what}; the learning rate is probably too high: lower lr, give it a "
        "warmup, or set train.clip_norm"
    )


def _set_learning_rate(training: Training, step: int, steps_per_epoch: int) -> None:
    params = training.params
    lr = learning_rate(
        params.schedule,
        step,
        params.epochs * steps_per_epoch,
        round(params.warmup * steps_per_epoch),
        params.lr,
    )
    for group in training.optimizer.param_groups:
        group["lr"] = lr * group["lr_share"]


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Follow weights and batch norm's statistics; early on faster, to forget the first ones."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
    for mine, its in zip(averaged.buffers(), model.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(its, 1 - decay)
        else:
            mine.copy_(its)


def _has_stalled(history: list[dict[str, Any]], patience: int) -> bool:
    return bool(patience and history and len(history) - history[-1]["kept"] >= patience)


def _snapshot(training: Training) -> dict[str, Any]:
    averaged = training.averaged
    return {
        "model": training.model.state_dict(),
        "averaged": averaged.state_dict() if averaged is not None else None,
        "optimizer": training.optimizer.state_dict(),
    }


def _restore(training: Training, state: dict[str, Any]) -> None:
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    if training.averaged is not None:
        training.averaged.load_state_dict(state["averaged"])
