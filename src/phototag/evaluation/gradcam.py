"""Heat maps of the image regions that increase a label's logit (Grad-CAM).

Selvaraju et al. (2017) describe the method.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import numpy as np
import torch
from torch import Tensor, nn

from phototag.network.model import Residual, SideBySide

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)


def locate_labels(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray | None:
    """Compute one heat map per photo for the requested label.

    A heat map is a weighted sum of the feature maps before the last pooling layer. Negative sums
    are set to 0. The weight of a feature map is the mean gradient of the label's logit. The
    network `conv` uses the feature maps of the last convolution (after batch norm and ReLU), or of
    the residual unit that contains this convolution. Heat maps of several backbones are added.

    Args:
        model: Network that maps pixels to logits; switched to evaluation mode by this function.
        images: Photos, uint8 [batch, 3, size, size].
        labels: Label (position) that is requested for each photo, int64 [batch].

    Returns:
        float32 [batch, size, size]. Each map is scaled to a maximum of 1, unless all its values are
        0. None if a backbone has no spatial feature maps. This includes all transformers, because
        attention mixes positions.
    """
    model.eval()
    backbones = _list_backbones(model)
    layers = [_find_pooled_maps(backbone, model, images[:1]) for backbone in backbones]
    layers = layers or [_find_last_maps(model)]
    if None in layers:
        return None
    outputs: dict[nn.Module, Tensor] = {}
    with (
        _record_outputs([layer for layer in layers if layer], outputs.__setitem__),
        torch.enable_grad(),
    ):
        logits = model(images)
        wanted = logits.gather(1, labels[:, None].to(logits.device)).sum()
        gradients = torch.autograd.grad(wanted, list(outputs.values()))
    heat = torch.zeros(len(images), 1, *images.shape[2:], device=logits.device)
    for maps, gradient in zip(outputs.values(), gradients, strict=True):
        importance = gradient.mean(dim=(2, 3), keepdim=True)
        # In the network `conv`, these layers are followed by a ReLU, which `clamp` replaces here.
        activated = maps.detach() if backbones else maps.detach().clamp(min=0)
        weighted = (importance * activated).sum(dim=1, keepdim=True)
        heat += nn.functional.interpolate(
            weighted, images.shape[2:], mode="bilinear", align_corners=False
        )
    heat.clamp_(min=0)
    peak = heat.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    return np.asarray((heat / peak).squeeze(1).float().cpu().numpy())


def _list_backbones(model: nn.Module) -> list[nn.Module]:
    """List the backbones of a network, which are modules from torchvision or timm."""
    parts = [module for module in model.modules() if isinstance(module, SideBySide)]
    if parts:
        return list(parts[0].parts)
    own = (Residual, nn.Sequential)
    return [part for part in model.children() if [*part.children()] and not isinstance(part, own)]


def _find_pooled_maps(backbone: nn.Module, model: nn.Module, image: Tensor) -> nn.Module | None:
    """Run the model on one image, and return the last layer that has a spatial output."""
    names = {type(module).__name__.lower() for module in backbone.modules()}
    if any("attention" in name for name in names):
        return None
    found: list[tuple[nn.Module, torch.Size]] = []
    layers = [module for module in backbone.modules() if not isinstance(module, POOLS)]
    record = _record_outputs(layers, lambda layer, output: found.append((layer, output.shape)))
    with record, torch.no_grad():
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
def _record_outputs(
    layers: Sequence[nn.Module], record: Callable[[nn.Module, Tensor], object]
) -> Iterator[None]:
    """Call `record(layer, output)` each time that this thread runs one of the layers."""
    thread = get_ident()  # ignore other threads: in the demo, they serve other users

    def hook(layer: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor) and get_ident() == thread:
            record(layer, output)

    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for registered in hooks:
            registered.remove()
