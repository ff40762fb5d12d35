"""Optimizers, parameter groups with different learning rates, and learning rate schedules."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from phototag.network.model import find_head, list_backbones
from phototag.training.params import TrainingParams

DEPTHS = 8  # number of parts of a backbone; each part has a different learning rate


def build_optimizer(model: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """Build the optimizer that `params` specifies.

    For `adamw`, `weight_decay` shrinks the weights directly (decoupled weight decay). For the other
    optimizers, it adds the gradient of an L2 penalty to the gradient of the loss.
    """
    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": partial(torch.optim.Adam, fused=True),
        "adamw": partial(torch.optim.AdamW, fused=True),
        "adagrad": torch.optim.Adagrad,
        "sgd": partial(torch.optim.SGD, momentum=params.momentum, fused=True),
    }
    groups = group_parameters(model, params)
    return optimizers[params.optimizer](groups, lr=params.lr, weight_decay=params.weight_decay)


def group_parameters(model: nn.Module, params: TrainingParams) -> list[dict[str, Any]]:
    """Group the parameters by learning rate, which is `lr * lr_share` in each group.

    Without fine-tuning, all parameters have the learning rate `lr`. In fine-tuning, the layers of
    each backbone are divided into eight parts. The rate is `lr * finetune.first_lr` in the first
    part, increases by a constant factor from part to part, and is `lr` in the head. The first
    layers detect general features, which need the smallest changes (layer-wise decay; Howard and
    Ruder, 2018). Biases and normalisation layers have no weight decay in fine-tuning.
    """
    if not params.model.finetuned:
        return [{"params": list(model.parameters()), "lr_share": 1.0}]
    assert isinstance(model, nn.Sequential)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for backbone in list_backbones(model):
        layers = [layer for layer in backbone.modules() if list(layer.parameters(recurse=False))]
        for index, layer in enumerate(layers):
            for parameter in layer.parameters(recurse=False):
                depth = DEPTHS * index // len(layers)
                groups.setdefault((depth, parameter.ndim > 1), []).append(parameter)
    for parameter in find_head(model).parameters():
        groups.setdefault((DEPTHS, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_share": math.pow(params.finetune.first_lr, 1 - depth / DEPTHS),
            **({} if decayed else {"weight_decay": 0.0}),
        }
        for (depth, decayed), parameters in sorted(groups.items())
    ]


def learning_rate(params: TrainingParams, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step; `params.lr` is the peak.

    In the first `warmup` epochs of `constant` and `cosine`, the rate increases linearly to the
    peak. It then remains constant (`constant`) or decreases to 0 (`cosine`). With `one-cycle`
    (Smith and Topin, 2018, as implemented in PyTorch), the rate increases from `peak / 25` to the
    peak in the first 30% of the steps, and then decreases to `peak / 250_000`. `step` is counted
    from 0 at the start of the training.
    """
    peak, total = params.lr, params.epochs * steps_per_epoch
    if params.schedule == "one-cycle":
        turn = 0.3 * total - 1
        if step <= turn:
            return _anneal(peak / 25, peak, step / turn)
        return _anneal(peak, peak / 250_000, (step - turn) / (total - 1 - turn))
    warmup = round(params.warmup * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / warmup
    if params.schedule == "cosine":
        return _anneal(peak, 0, (step - warmup) / max(total - warmup, 1))
    return peak


def _anneal(start: float, end: float, share: float) -> float:
    """Interpolate with half a cosine period; `share` is 0 at the start and 1 at the end."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
