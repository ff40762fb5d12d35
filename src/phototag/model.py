"""The report's network, built from a declarative spec."""

import torch
from torch import Tensor, nn

from phototag.errors import InputError
from phototag.params import ModelParams


class Normalize(nn.Module):
    """uint8 pixels to zero mean and unit variance a channel.

    Being part of the network, it travels with the weights: whoever loads them gives plain pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        # A channel that is the same everywhere has std 0 and carries nothing.
        safe = [value if value > 0 else 1.0 for value in std]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(safe).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 or float [batch, 3, size, size], 0..255, to float32 of the same shape."""
        return (images.float() - self.mean) / self.std


def build_model(
    spec: ModelParams, num_labels: int, size: int, mean: list[float], std: list[float]
) -> nn.Sequential:
    """Build the network: normalisation, conv blocks, flatten, linear layers.

    A block is convolution, max pool, ReLU. ReLU is monotonic, so pooling first gives the same
    function and leaves the ReLU a quarter of the values.

    Args:
        spec: The blocks and the hidden linear layers.
        num_labels: Units of the output layer.
        size: Pixels a side of the input.
        mean: Of each channel, on the scale 0..1, [3].
        std: Of each channel, on the scale 0..1, [3].

    Returns:
        A module from uint8 [batch, 3, size, size] to logits, float [batch, num_labels].

    Raises:
        InputError: The feature map shrinks to nothing; the message names the layer.
    """
    layers: list[nn.Module] = [Normalize(mean, std)]
    channels, side = 3, size
    for index, block in enumerate(spec.conv):
        pool_stride = block.pool_stride or block.pool
        before = side
        side = (side + 2 * block.padding - block.kernel) // block.stride + 1
        side = (side - block.pool) // pool_stride + 1 if side >= block.pool else 0
        if side < 1:
            raise InputError(
                f"model.conv.{index} (kernel {block.kernel}, stride {block.stride}, padding "
                f"{block.padding}, pool {block.pool}) leaves nothing of a map of "
                f"{channels} x {before} x {before}: make the kernel, stride or pool smaller"
            )
        layers.append(
            nn.Conv2d(channels, block.out, block.kernel, block.stride, padding=block.padding)
        )
        if block.pool > 1:
            layers.append(nn.MaxPool2d(block.pool, pool_stride))
        layers.append(nn.ReLU(inplace=True))
        channels = block.out
    layers.append(nn.Flatten())
    width = channels * side * side
    for out in spec.linear:
        layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
        width = out
    layers.append(nn.Linear(width, num_labels))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


@torch.no_grad()
def init_he(model: nn.Sequential, prior: Tensor) -> None:
    """Initialise as He et al. (2015) do for ReLU, and the output's bias at the label prior.

    PyTorch's default shrinks the signal layer by layer, so that this network, which has no
    normalisation layers, predicts the prior for thousands of steps.

    Args:
        model: The network; its last layer is the output.
        prior: Share of photos that carry each label, 0..1, float [num_labels].
    """
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    head = model[-1]
    assert isinstance(head, nn.Linear)
    head.bias.copy_(torch.logit(prior, eps=1e-4))
