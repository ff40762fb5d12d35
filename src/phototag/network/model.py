"""Networks: the network `conv`, whose layers params.yaml lists, or backbones with a head."""

from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from phototag.network.backbones import build_backbone
from phototag.network.params import FeatureSpec, ModelParams, Pairs, feature_map_side
from phototag.network.pooling import MapPool, PooledBackbone, PowerTransform
from phototag.network.pretrained import read_pretrained

INTERPOLATION = Image.Resampling.BICUBIC  # used to enlarge photos


class Standardize(nn.Module):
    """Standardise features, using the means and standard deviations of the training photos."""

    mean: Tensor
    std: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map features, [batch, width], or photos, [batch, 3, size, size], to float32."""
        return (inputs.float() - self.mean) / self.std


class Normalize(Standardize):
    """Normalise pixels, uint8 or float 0..255, to zero mean and unit variance per channel.

    Because this layer is part of the network, a loaded model accepts unnormalised pixels. `mean` is
    the mean of each channel, and `std` its standard deviation, for pixels from 0 to 1, [3] each.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__(1, 3, 1, 1)
        # Divide a constant channel by 1 instead of its std 0, so that it becomes 0.
        safe = [value if value > 0 else 1.0 for value in std]
        self.mean = torch.tensor(mean).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(safe).view(1, 3, 1, 1) * 255


class Enlarge(nn.Module):
    """Enlarge photos as Pillow does, but without rounding the pixels to integers.

    Each new row is a weighted sum of the old rows, and so is each new column of the old columns.
    The same matrix, [network_size, size], contains the weights of both.
    """

    weights: Tensor

    def __init__(self, size: int, network_size: int) -> None:
        super().__init__()
        identity = Image.fromarray(np.eye(size, dtype=np.float32))
        weights = identity.resize((size, network_size), INTERPOLATION)
        self.register_buffer("weights", torch.from_numpy(np.array(weights)))

    def forward(self, images: Tensor) -> Tensor:
        """Map photos, [batch, 3, size, size], to float32 [batch, 3, network_size, network_size]."""
        # Autocast would round the pixels to bfloat16, which has only 8 significant bits.
        with torch.autocast(images.device.type, enabled=False):
            pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
            wide = (pixels @ self.weights.T).clamp(0, 255)  # Pillow clips after both passes
            return (self.weights @ wide).clamp(0, 255)


class SideBySide(nn.Module):
    """Several backbones that process the same photos; their features are concatenated."""

    def __init__(self, parts: list[nn.Sequential]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Map photos, [batch, 3, size, size], to features, [batch, total width of all parts]."""
        return torch.cat([part(images) for part in self.parts], dim=1)


class Residual(nn.Module):
    """Residual unit with two 3 x 3 convolutions (He et al., 2016)."""

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
    spec: ModelParams,
    num_labels: int,
    size: int,
    mean: list[float],
    std: list[float],
    network_size: int = 0,
) -> nn.Sequential:
    """Build a network: normalisation, then conv blocks or backbones, then linear layers.

    A conv block consists of a convolution, optional batch norm, max pooling, ReLU and residual
    units. Because ReLU is monotonic, pooling before ReLU gives the same result as pooling after it,
    and ReLU then processes fewer values.

    With backbones, `model[:2]` computes features and `model[2:]` is the head. The head standardises
    the features of pretrained backbones, and ends with a linear layer. If the backbones are frozen,
    `spec.linear` adds hidden layers to the head.

    `mean` and `std` are the channel means and standard deviations of the photos, 0..1, [3].
    Pretrained backbones ignore them and use the values that their weights require. `size` is the
    side of the photos that the network receives. `network_size` is the side to which its first
    layer enlarges them (default: not enlarged).

    Returns:
        Module that maps photos, uint8 [batch, 3, size, size], to logits, float [batch, num_labels].
        Call `initialize` to set its initial weights.

    Raises:
        InputError: The feature map is smaller than the kernel or pool of a block (the message names
            the block), a backbone does not exist, or it does not support photos of this size.
    """
    network_size = network_size or size
    if spec.backbones:
        layers, width = _join_backbones(spec.features(network_size), mean, std)
        if spec.pretrained:
            layers.append(Standardize(width))
        hidden = spec if spec.frozen else spec.model_copy(update={"linear": (), "dropout": 0.0})
        layers += _build_linear(hidden, width, num_labels)
    else:
        layers = [Normalize(mean, std), *_build_layers(spec, num_labels, network_size)]
    return _put_channels_last(nn.Sequential(*_enlarge_first(layers, size, network_size)))


def build_backbones(spec: FeatureSpec, size: int) -> nn.Sequential:
    """Build the frozen part of a network, `build_model(...)[:2]`, with pretrained weights.

    `size` is the side of the photos that the network receives, in pixels.

    Raises:
        InputError: There is no such network, it does not support photos of this size, or its
            weights are missing or belong to another network.
    """
    layers, _ = _join_backbones(spec, [0.5] * 3, [0.5] * 3)
    model = nn.Sequential(*_enlarge_first(layers, size, spec.size))
    load_weights(model, spec.pairs)
    return _put_channels_last(model)


def _enlarge_first(layers: list[nn.Module], size: int, network_size: int) -> list[nn.Module]:
    """Make the first module, which normalises pixels or does nothing, enlarge photos first."""
    if size == network_size:
        return layers
    return [nn.Sequential(Enlarge(size, network_size), layers[0]), *layers[1:]]


def _put_channels_last(model: nn.Sequential) -> nn.Sequential:
    """Convert the weights to channels_last, the memory layout of the photos, which is faster.

    In this layout, oneDNN has a bug: the gradient of a strided 1 x 1 convolution with few input
    channels writes past its buffer and crashes the process (uxlfoundation/oneDNN, issue 6035). To
    avoid it, such a convolution gets stride 1, and a hook first selects the pixels at the original
    stride. The result is the same.
    """
    for module in model.modules():
        # oneDNN processes 8 channels at a time with AVX2, and 16 with AVX-512. The bug occurs if
        # a convolution has fewer channels and no padding.
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
    spec: FeatureSpec, mean: list[float], std: list[float]
) -> tuple[list[nn.Module], int]:
    """Return a list of two modules (normalisation, backbones), and the number of features."""
    parts, width = [], 0
    for name, weights in spec.pairs:
        backbone = build_backbone(name, weights, *spec[1:])
        used = (backbone.mean, backbone.std) if weights else (mean, std)
        parts.append(nn.Sequential(Normalize(*used), backbone.features))
        width += backbone.width
    if len(parts) == 1:
        return list(parts[0]), width
    # Each backbone has its own normalisation.
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
        layers.append(MapPool(spec.global_pool))
        channels, side = channels * (1 + (spec.global_pool == "mean-max")), 1
    layers.append(nn.Flatten())
    if spec.power != 1:
        layers.append(PowerTransform(spec.power))
    return [*layers, *_build_linear(spec, channels * side * side, num_labels)]


def _build_linear(spec: ModelParams, width: int, num_labels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for out in (*spec.linear, num_labels):
        if spec.dropout:
            layers.append(nn.Dropout(spec.dropout))
        layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
        width = out
    return layers[:-1]  # remove the ReLU after the logits


def load_weights(model: nn.Sequential, pairs: Pairs) -> None:
    """Load the pretrained weights of each backbone, and leave the head unchanged.

    Raises:
        InputError: The weights are missing or belong to another network.
    """
    for network, (name, weights) in zip(list_backbones(model), pairs, strict=True):
        if weights:
            network.load_state_dict(read_pretrained(name, network, weights, pairs), strict=False)


def list_backbones(model: nn.Sequential) -> list[nn.Module]:
    """Return the backbones of a network without normalisation and pooling by phototag."""
    joined = model[1]
    parts = joined.parts if isinstance(joined, SideBySide) else [model]
    found = [part.get_submodule("1") for part in parts]
    return [part.network if isinstance(part, PooledBackbone) else part for part in found]


def find_head(model: nn.Module) -> nn.Linear:
    """Return the output layer of a network, which is its last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def initialize(model: nn.Sequential, spec: ModelParams, prior: Tensor) -> None:
    """Set the initial weights of a new network, and load pretrained weights.

    For the network `conv`, `init: he` draws weights suited to ReLU (He et al., 2015) and sets the
    biases of the output layer to the logits of the label frequencies, so that the first loss is
    small. `init: pytorch` keeps PyTorch's defaults, which shrink the signal from layer to layer:
    without batch norm, the network then predicts the label frequencies for thousands of steps.

    Backbones get pretrained weights, or keep the initial weights of their library. The output
    biases are set as with `init: he`. A head without hidden layers on pretrained backbones starts
    with all weights 0, and therefore first predicts exactly the label frequencies. `prior` contains
    these frequencies: the share of positives among each label's known targets in the train split,
    0..1, float [num_labels].

    Raises:
        InputError: The weights are missing or belong to another network.
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
                # The loss is a convex function of these weights: random values are not needed.
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
            # Set the weights of the unit's last layer to 0. The unit then starts as the identity
            # (Goyal et al., 2017). Index -1 is the bias of this layer, index -2 its weights.
            nn.init.zeros_(list(layer.parameters())[-2])
