"""Heat maps of the image regions that increase a label's logit (Grad-CAM).

Selvaraju et al. (2017) describe the method.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import numpy as np
import torch
from torch import Tensor, nn

from phototag.network.familiarity import LogitsAndDistance
from phototag.network.model import Residual, SideBySide

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)


def locate_labels(
    model: nn.Module, images: Tensor, pairs: Sequence[tuple[int, int]], side: int = 0
) -> np.ndarray | None:
    """Compute one heat map per pair of a photo and a label.

    A heat map is a weighted sum of the feature maps before the last pooling layer. Negative sums
    are set to 0. The weight of a feature map is the mean gradient of the label's logit. The
    network `conv` uses the feature maps of the last convolution (after batch norm and ReLU), or of
    the residual unit that contains this convolution. Heat maps of several backbones are added.

    Args:
        model: Network that maps pixels to logits. This function switches it to evaluation mode, and
            excludes its weights from gradients.
        images: Photos, uint8 [batch, 3, size, size].
        pairs: Position of a photo in `images` and position of a label, for each heat map.
        side: Side length of the heat maps in pixels (default: that of the photos).

    Returns:
        float32 [num_pairs, side, side]. Each map is scaled to a maximum of 1, unless all its values
        are 0. None if a backbone has no spatial feature maps. This includes all transformers,
        because attention mixes positions.
    """
    model.eval().requires_grad_(False)
    backbones = _list_backbones(model)
    layers = [_find_pooled_maps(backbone, model, images[:1]) for backbone in backbones]
    layers = layers or [_find_last_maps(model)]
    if None in layers:
        return None
    maps: list[Tensor] = []

    def start_gradients(_: nn.Module, output: Tensor) -> Tensor:
        maps.append(output.detach().requires_grad_().clone())
        return maps[-1]

    with _watch_outputs([layer for layer in layers if layer], start_gradients), torch.enable_grad():
        logits = model(images)
    photos, labels = torch.tensor(pairs).T
    size = [side or length for length in images.shape[2:]]
    heat = torch.zeros(len(pairs), 1, *size, device=logits.device)
    for label in labels.unique():
        (chosen,) = torch.where(labels == label)
        own = photos[chosen].to(logits.device)
        gradients = torch.autograd.grad(logits[own, label].sum(), maps, retain_graph=True)
        for output, gradient in zip(maps, gradients, strict=True):
            # In the network `conv`, these layers are followed by a ReLU, which `clamp` replaces.
            activated = output.detach()[own] if backbones else output.detach()[own].clamp(min=0)
            importance = gradient[own].mean(dim=(2, 3), keepdim=True)
            weighted = (importance * activated).sum(dim=1, keepdim=True)
            heat[chosen] += nn.functional.interpolate(
                weighted, size, mode="bilinear", align_corners=False
            )
    heat.clamp_(min=0)
    peak = heat.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    return np.asarray((heat / peak).squeeze(1).float().cpu().numpy())


def _list_backbones(model: nn.Module) -> list[nn.Module]:
    """List the backbones of a network, which are modules from torchvision or timm."""
    parts = [module for module in model.modules() if isinstance(module, SideBySide)]
    if parts:
        return list(parts[0].parts)
    own = (Residual, nn.Sequential, LogitsAndDistance)
    return [part for part in model.children() if [*part.children()] and not isinstance(part, own)]


def _find_pooled_maps(backbone: nn.Module, model: nn.Module, image: Tensor) -> nn.Module | None:
    """Run the model on one image, and return the last layer that has a spatial output."""
    names = {type(module).__name__.lower() for module in backbone.modules()}
    if any("attention" in name for name in names):
        return None
    found: list[tuple[nn.Module, torch.Size]] = []
    layers = [module for module in backbone.modules() if not isinstance(module, POOLS)]
    watch = _watch_outputs(layers, lambda layer, output: found.append((layer, output.shape)))
    with watch, torch.no_grad():
        model(image)
    # Ignore feature maps that are already pooled to a single position.
    maps = [(layer, shape) for layer, shape in found if len(shape) > 2 and shape[2:].numel() > 1]
    if not maps:
        return None
    layer, shape = maps[-1]
    # Photos are square. If the last two dimensions differ, they are not height and width.
    return layer if len(shape) == 4 and shape[2] == shape[3] else None


def _find_last_maps(model: nn.Module) -> nn.Module:
    """Return the last convolution or batch norm layer, or the residual unit that contains it."""
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)][-1]
    # A residual unit is preferred, because its output also includes the skip connection.
    around = (m for m in model.modules() if isinstance(m, Residual) and last in m.modules())
    return next(around, last)


@contextmanager
def _watch_outputs(
    layers: Sequence[nn.Module], watch: Callable[[nn.Module, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call `watch(layer, output)` each time that this thread runs one of the layers.

    A tensor that `watch` returns replaces the output.
    """
    thread = get_ident()  # ignore other threads: in the demo, they serve other users

    def hook(layer: nn.Module, given: object, output: object) -> Tensor | None:
        if isinstance(output, Tensor) and get_ident() == thread:
            return watch(layer, output)
        return None

    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for registered in hooks:
            registered.remove()
