"""Networks: the report's conv network built from params, or backbones with a head."""

from functools import partial

import torch
from torch import Tensor, nn

from phototag.network.backbones import build_backbone
from phototag.network.params import ModelParams, Pairs, Weights, feature_map_side, pair_backbones
from phototag.network.pretrained import read_pretrained


class Normalize(nn.Module):
    """Normalise pixels to zero mean and unit variance per channel.

    The layer is part of the network, so that a loaded model takes unnormalised pixels. Means and
    standard deviations are those of pixels from 0 to 1, [3].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        # A constant channel has std 0; dividing by 1 keeps it at 0.
        safe = [value if value > 0 else 1.0 for value in std]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(safe).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 or float [batch, 3, size, size], 0..255, to float32 of the same shape."""
        return (images.float() - self.mean) / self.std


class SideBySide(nn.Module):
    """Several backbones for the same photos, whose features are concatenated."""

    def __init__(self, parts: list[nn.Sequential]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Map [batch, 3, size, size] to [batch, sum of the widths]."""
        return torch.cat([part(images) for part in self.parts], dim=1)


class Standardize(nn.Module):
    """Standardise features with their means and standard deviations on the train split."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Map features, float [batch, width], to the same shape."""
        return (features - self.mean) / self.std


class Residual(nn.Module):
    """Residual unit of two 3 x 3 convolutions (He et al., 2016)."""

    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()

        def convolve() -> list[nn.Module]:
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            return [conv, nn.BatchNorm2d(channels)] if batch_norm else [conv]

        self.branch = nn.Sequential(*convolve(), nn.ReLU(inplace=True), *convolve())

    def forward(self, maps: Tensor) -> Tensor:
        """Map feature maps, float [batch, channels, side, side], to the same shape."""
        return nn.functional.relu(maps + self.branch(maps))


def build_model(
    spec: ModelParams, num_labels: int, size: int, mean: list[float], std: list[float]
) -> nn.Sequential:
    """Build a network: normalisation, then conv blocks or backbones, then linear layers.

    A conv block is convolution, optional batch norm, max pooling, ReLU, residual units. ReLU is
    monotonic, so pooling before it gives the same function with a quarter of the values.

    With backbones, `model[:2]` computes features and `model[2:]` is the head, one linear layer.
    Features of pretrained backbones are standardised before it. If the backbones are frozen,
    `spec.linear` adds hidden layers to the head.

    Args:
        spec: Conv blocks and hidden layers, or names of backbones.
        num_labels: Number of outputs.
        size: Side of the photos in pixels.
        mean: Channel means, 0..1, [3]; pretrained weights replace them.
        std: Channel standard deviations, [3]; pretrained weights replace them.

    Returns:
        Module from uint8 [batch, 3, size, size] to logits, float [batch, num_labels], with random
        weights; `initialize` sets the final ones.

    Raises:
        InputError: A feature map shrinks to nothing (the message names the block), there is no
            backbone of that name, or it cannot take photos of this size.
    """
    if spec.backbones:
        layers, width = _join_backbones(spec.backbones, size, mean, std)
        if spec.pretrained:
            layers.append(Standardize(width))
        hidden = spec if spec.frozen else spec.model_copy(update={"linear": (), "dropout": 0.0})
        layers += _build_linear(hidden, width, num_labels)
    else:
        layers = [Normalize(mean, std), *_build_layers(spec, num_labels, size)]
    return _put_channels_last(nn.Sequential(*layers))


def build_backbones(name: str, weights: Weights, size: int) -> nn.Sequential:
    """Build the frozen part of a network, `build_model(...)[:2]`, with pretrained weights.

    Raises:
        InputError: There is no such network, it cannot take photos of this size, or its weights
            are missing or belong to another network.
    """
    pairs = pair_backbones(name, weights)
    layers, _ = _join_backbones(pairs, size, [0.5] * 3, [0.5] * 3)
    model = nn.Sequential(*layers)
    load_weights(model, pairs)
    return _put_channels_last(model)


def _put_channels_last(model: nn.Sequential) -> nn.Sequential:
    """Convert the weights to channels_last, the memory layout of the photos, which is faster.

    In this layout oneDNN's gradient of a strided 1 x 1 convolution with few input channels writes
    past its buffer, and the process dies (uxlfoundation/oneDNN, issue 6035). Such a convolution
    reads only the pixels at its stride: selecting them first, with stride 1, is the same function.
    """
    for module in model.modules():
        # oneDNN's blocks have 8 channels with AVX2, 16 with AVX-512. Padding avoids the fault.
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.padding in ((0, 0), "valid")
            and module.in_channels < 16
        ):
            rows, columns = module.stride
            module.stride = (1, 1)
            module.register_forward_pre_hook(partial(_take_at_stride, rows=rows, columns=columns))
    return model.to(memory_format=torch.channels_last)


def _take_at_stride(_: nn.Module, inputs: tuple[Tensor], rows: int, columns: int) -> tuple[Tensor]:
    return (inputs[0][:, :, ::rows, ::columns],)


def _join_backbones(
    pairs: Pairs, size: int, mean: list[float], std: list[float]
) -> tuple[list[nn.Module], int]:
    """Return normalisation and backbone, and the number of features.

    Several backbones have one normalisation each.
    """
    parts, width = [], 0
    for name, weights in pairs:
        backbone = build_backbone(name, weights, size)
        used = (backbone.mean, backbone.std) if weights else (mean, std)
        parts.append(nn.Sequential(Normalize(*used), backbone.network))
        width += backbone.width
    if len(parts) == 1:
        return list(parts[0]), width
    return [nn.Identity(), SideBySide(parts)], width


def _build_layers(spec: ModelParams, num_labels: int, size: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels, side = 3, feature_map_side(spec, size)
    for block in spec.conv:
        layers.append(
            nn.Conv2d(channels, block.out, block.kernel, block.stride, padding=block.padding)
        )
        if spec.batch_norm:
            layers.append(nn.BatchNorm2d(block.out))
        if block.pool > 1:
            layers.append(nn.MaxPool2d(block.pool, block.pool_stride or block.pool))
        layers.append(nn.ReLU(inplace=True))
        layers += [Residual(block.out, spec.batch_norm) for _ in range(block.residual)]
        channels = block.out
    if spec.global_pool != "none":
        layers.append(
            nn.AdaptiveAvgPool2d(1) if spec.global_pool == "mean" else nn.AdaptiveMaxPool2d(1)
        )
        side = 1
    return [*layers, nn.Flatten(), *_build_linear(spec, channels * side * side, num_labels)]


def _build_linear(spec: ModelParams, width: int, num_labels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for out in (*spec.linear, num_labels):
        if spec.dropout:
            layers.append(nn.Dropout(spec.dropout))
        layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
        width = out
    return layers[:-1]  # no ReLU after the logits


def load_weights(model: nn.Sequential, pairs: Pairs) -> None:
    """Load the pretrained weights of each backbone, and leave the head unchanged.

    Raises:
        InputError: The weights are missing, or belong to another network.
    """
    for network, (name, weights) in zip(list_backbones(model), pairs, strict=True):
        if weights:
            network.load_state_dict(read_pretrained(name, network, weights), strict=False)


def list_backbones(model: nn.Sequential) -> list[nn.Module]:
    """Return the backbones of a network, without their normalisation."""
    joined = model[1]
    parts = joined.parts if isinstance(joined, SideBySide) else [model]
    return [part.get_submodule("1") for part in parts]


def find_head(model: nn.Module) -> nn.Linear:
    """Return the output layer, the last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def initialize(model: nn.Sequential, spec: ModelParams, prior: Tensor) -> None:
    """Set the initial weights of a new network, and load pretrained ones.

    Conv network: `init: he` draws weights for ReLU (He et al., 2015), and sets the biases of the
    output layer to the label frequencies, so that the first loss is small; `init: pytorch` keeps
    PyTorch's defaults. These shrink the signal layer by layer: this network, without normalisation
    layers, then predicts the label frequencies for thousands of steps.

    Backbones: their library's initialisation or the pretrained weights, with the same biases. With
    pretrained weights, the head without hidden layers starts at the label frequencies alone.

    Args:
        model: Network returned by `build_model`.
        spec: Params of the network.
        prior: Label frequencies on the train split among known targets, 0..1, float [num_labels].

    Raises:
        InputError: The weights are missing, or belong to another network.
    """
    head = find_head(model)
    if not spec.backbones:
        if spec.init == "pytorch":
            return
        _draw_weights(model)
    else:
        load_weights(model, spec.backbones)
        if spec.pretrained:
            _draw_weights(model[2:])
            if not (spec.frozen and spec.linear):
                # The loss is convex in this layer: no random start is needed.
                nn.init.zeros_(head.weight)
    head.bias.copy_(torch.logit(prior, eps=1e-4))


def _draw_weights(layers: nn.Module) -> None:
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in layers.modules():
        if isinstance(layer, Residual):
            # Each unit starts as the identity (Goyal et al., 2017): its last weights are 0. The
            # last parameters are biases.
            nn.init.zeros_(list(layer.parameters())[-2])
