"""Preparation of batch norm layers for training."""

import itertools
from typing import Any

import torch
from torch import nn

from phototag.network import distributed
from phototag.network.backbones import import_timm


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make batch norm use statistics of the whole batch, not only of this process's part.

    The names of the tensors in the state dict do not change. On a CPU, this function does nothing,
    because PyTorch's `SyncBatchNorm` supports only GPUs.
    """
    if distributed.world_size() == 1 or device.type == "cpu":
        return
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(type(layer).__module__.startswith("timm.") for layer in model.modules()):
        # timm's batch norm layers include an activation, which PyTorch's function would remove.
        convert = import_timm().layers.convert_sync_batchnorm
    convert(model)


def freeze_redundant_biases(model: nn.Module) -> None:
    """Freeze the bias of each convolution that is followed by batch norm.

    Batch norm subtracts the bias again. The gradient of the bias is therefore only rounding noise,
    which Adam would scale to full steps. The running statistics would follow these steps with a
    delay, and the predictions would contain the noise.
    """
    for layers in model.modules():
        if isinstance(layers, nn.Sequential):
            for layer, following in itertools.pairwise(layers):
                normalised = isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d)
                if normalised and layer.bias is not None:
                    layer.bias.requires_grad_(False)


def freeze_statistics(model: nn.Module) -> None:
    """Make batch norm use its running statistics without updating them, until `model.train()`."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
