"""What steps the weights, and which of them at which rate."""

import math
from typing import Any

import torch
from torch import nn

from phototag.network.model import find_head, list_backbones
from phototag.training.params import TrainingParams
from phototag.training.solver import build_solver

DEPTHS = 8  # of a backbone, each with a rate of its own


def build_optimizer(model: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay is L2, added to the gradient, or adamw's, taken off.

    That of lbfgs is the first of a path of strengths, one an epoch.
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
        case "lbfgs":
            return build_solver(model)
        case "sgd":
            return torch.optim.SGD(
                groups, lr, params.momentum, weight_decay=weight_decay, fused=True
            )


def group_parameters(model: nn.Module, params: TrainingParams) -> list[dict[str, Any]]:
    """Group parameters by the share of the learning rate at which they are trained, as `lr_share`.

    All have the whole rate, unless backbones that bring weights are trained on. Then the head has
    it; a backbone's first eighth of layers has `finetune.first_lr` of it, and the rate rises from
    eighth to eighth by the same factor, because what the first layers see is what all photos are
    made of (layer-wise decay; Howard and Ruder, 2018). Biases and normalisation are not decayed.

    Args:
        model: Of `build_model`.
        params: All of params.yaml.
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
