"""Optimizers, and the groups of parameters with their learning rates."""

import math
from typing import Any

import torch
from torch import nn

from phototag.network.model import find_head, list_backbones
from phototag.training.params import TrainingParams

DEPTHS = 8  # groups of a backbone's layers with one learning rate each


def build_optimizer(model: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """Build the optimizer that params.yaml names.

    `weight_decay` is an L2 penalty, added to the gradient; adamw decouples it from the gradient.

    Args:
        model: Network returned by `build_model`.
        params: Params of the train stage; lbfgs is not for networks, see `linear_probe`.
    """
    lr, weight_decay = params.lr, params.weight_decay
    groups = group_parameters(model, params)
    match params.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr, weight_decay=weight_decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr, weight_decay=weight_decay, fused=True)
        case "adagrad":
            return torch.optim.Adagrad(groups, lr, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(
                groups, lr, params.momentum, weight_decay=weight_decay, fused=True
            )
        case "lbfgs":
            raise ValueError("lbfgs fits a linear probe: call fit_linear_probe")


def group_parameters(model: nn.Module, params: TrainingParams) -> list[dict[str, Any]]:
    """Group parameters by learning rate; `lr_share` is a group's share of `lr`.

    All parameters have the full rate, except when pretrained backbones are trained further. Then
    the head has the full rate, the first eighth of a backbone's layers has `finetune.first_lr` of
    it, and the rate rises by a constant factor from eighth to eighth, because the first layers
    detect features that all photos share (layer-wise decay; Howard and Ruder, 2018). Biases and
    normalisation layers then have no weight decay.

    Args:
        model: Network returned by `build_model`.
        params: Params of the train stage.
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
