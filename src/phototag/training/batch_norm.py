"""Settings of batch norm layers for training."""

import itertools
from typing import Any

import torch
from torch import nn

from phototag.network import distributed
from phototag.network.backbones import import_timm


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Let batch norm use the statistics of the whole batch, not of one process's part.

    Names of tensors stay. On a CPU nothing changes: PyTorch's SyncBatchNorm supports GPUs only.
    """
    if distributed.world_size() == 1 or device.type == "cpu":
        return
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(type(layer).__module__.startswith("timm.") for layer in model.modules()):
        # PyTorch's function would drop the activation inside timm's batch norm layers.
        convert = import_timm().layers.convert_sync_batchnorm
    convert(model)


def freeze_redundant_biases(model: nn.Module) -> None:
    """Exclude the bias of each convolution that is followed by batch norm from training.

    Batch norm subtracts the bias, so its gradient is rounding noise. Adam scales this noise to
    full steps, and the running statistics, which lag behind, carry it into the predictions.
    """
    for layers in model.modules():
        if isinstance(layers, nn.Sequential):
            for layer, following in itertools.pairwise(layers):
                normalised = isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d)
                if normalised and layer.bias is not None:
                    layer.bias.requires_grad_(False)


def freeze_statistics(model: nn.Module) -> None:
    """Let batch norm use its running statistics and not update them, until `model.train()`."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
