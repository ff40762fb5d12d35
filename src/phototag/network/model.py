"""The network: the report's, built from a declarative spec, or one of torchvision's."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phototag.base.errors import InputError
from phototag.base.params import ModelParams


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


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a path that skips them (He et al., 2016)."""

    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()

        def convolve() -> list[nn.Module]:
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            return [conv, nn.BatchNorm2d(channels)] if batch_norm else [conv]

        self.branch = nn.Sequential(*convolve(), nn.ReLU(inplace=True), *convolve())

    def forward(self, maps: Tensor) -> Tensor:
        """Keep the shape [batch, channels, side, side]."""
        return nn.functional.relu(maps + self.branch(maps))


def build_model(
    spec: ModelParams, num_labels: int, size: int, mean: list[float], std: list[float]
) -> nn.Sequential:
    """Build the network: normalisation, conv blocks, global pool if wanted, linear layers.

    A block is convolution, batch norm if wanted, max pool, ReLU, residual units. ReLU is monotonic,
    so pooling first gives the same function and leaves the ReLU a quarter of the values.

    Args:
        spec: The blocks and the hidden linear layers, or the name of a torchvision network.
        num_labels: Units of the output layer.
        size: Pixels a side of the input.
        mean: Of each channel, on the scale 0..1, [3].
        std: Of each channel, on the scale 0..1, [3].

    Returns:
        A module from uint8 [batch, 3, size, size] to logits, float [batch, num_labels]. Its
        weights are drawn; `load_weights` takes others.

    Raises:
        InputError: The feature map shrinks to nothing (the message names the layer), or torchvision
            has no classifier of that name.
    """
    if spec.name == "conv":
        layers = _build_layers(spec, num_labels, size)
    else:
        layers = [_build_torchvision(spec.name, num_labels)]
    model = nn.Sequential(Normalize(mean, std), *layers)
    return model.to(memory_format=torch.channels_last)


def _build_layers(spec: ModelParams, num_labels: int, size: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
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
        if spec.batch_norm:
            layers.append(nn.BatchNorm2d(block.out))
        if block.pool > 1:
            layers.append(nn.MaxPool2d(block.pool, pool_stride))
        layers.append(nn.ReLU(inplace=True))
        layers += [Residual(block.out, spec.batch_norm) for _ in range(block.residual)]
        channels = block.out
    if spec.global_pool != "none":
        layers.append(
            nn.AdaptiveAvgPool2d(1) if spec.global_pool == "mean" else nn.AdaptiveMaxPool2d(1)
        )
        side = 1
    layers.append(nn.Flatten())
    width = channels * side * side
    for out in (*spec.linear, num_labels):
        if spec.dropout:
            layers.append(nn.Dropout(spec.dropout))
        layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
        width = out
    return layers[:-1]  # the logits are not rectified


def _build_torchvision(name: str, num_labels: int) -> nn.Module:
    from torchvision import models  # takes a second, which the report's network does not need

    known = models.list_models(models)
    if name not in known:
        raise InputError(
            f"model.name: torchvision has no classifier {name!r}; it has {', '.join(known)}"
        )
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_labels)
    return network


def load_weights(model: nn.Sequential, spec: ModelParams) -> None:
    """Load the weights that `spec.weights` names into a torchvision network, all but its head.

    Raises:
        InputError: There are none of that name, or they belong to another network.
    """
    network, head = model[1], find_head(model)
    own = network.state_dict()
    found = _read_weights(spec.name, str(spec.weights))
    fitting = {key: v for key, v in found.items() if key in own and own[key].shape == v.shape}
    prefix = next(key for key, module in network.named_modules() if module is head)
    missing = [key for key in own if key not in fitting and not key.startswith(f"{prefix}.")]
    if missing:
        raise InputError(
            f"model.weights: {spec.weights} does not fit {spec.name}: {missing[0]} is missing or "
            "has another shape"
        )
    network.load_state_dict(fitting, strict=False)


def _read_weights(name: str, weights: str) -> dict[str, Tensor]:
    path = Path(weights)
    if path.suffix == ".safetensors" and path.exists():
        return dict(load_file(path))
    if path.exists():
        try:
            # weights_only: a file cannot run code while it is read.
            found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(f"model.weights: {path} holds no tensors ({error})") from None
        return found
    from torchvision import models

    known = {entry.name: entry for entry in models.get_model_weights(name)}
    if weights != "DEFAULT" and weights not in known:
        raise InputError(
            f"model.weights: {weights!r} is neither a file nor one of {name}'s in torchvision "
            f"(DEFAULT, {', '.join(known)})"
        )
    entry = models.get_model_weights(name)[weights]
    downloaded: dict[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True)
    return downloaded


def find_head(model: nn.Module) -> nn.Linear:
    """Return the output layer: the last linear one."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def initialize(model: nn.Sequential, spec: ModelParams, prior: Tensor) -> None:
    """Give a new network its first weights.

    The report's network: with init he, as He et al. (2015) do for ReLU, and the output's bias at
    the label prior, so that the first loss is small; with pytorch, as it is. PyTorch's default
    shrinks the signal layer by layer, so that this network, which has no normalisation layers,
    predicts the prior for thousands of steps. A torchvision network: its own initialisation or
    `spec.weights`, and the same bias.

    Args:
        model: Of `build_model`.
        spec: From which it was built.
        prior: Share of photos that carry each label, 0..1, float [num_labels].

    Raises:
        InputError: The weights are not there, or belong to another network.
    """
    if spec.name == "conv":
        if spec.init == "pytorch":
            return
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in model.modules():
            if isinstance(layer, Residual):
                # Each unit starts as the path that skips it (Goyal et al., 2017).
                nn.init.zeros_(list(layer.parameters())[-2])  # its last weights; then come biases
    elif spec.weights:
        load_weights(model, spec)
    find_head(model).bias.copy_(torch.logit(prior, eps=1e-4))
