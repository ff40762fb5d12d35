"""Where in a photo the network saw a label (Grad-CAM; Selvaraju et al., 2017)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import numpy as np
import torch
from torch import Tensor, nn

from phototag.network.model import Residual, SideBySide

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)


def locate_labels(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray | None:
    """Compute one heat map a photo, of the label asked for.

    The feature maps that feed the last pool are summed, each weighed by the mean gradient of the
    label's logit with respect to it; what speaks against the label is cut off. In the report's
    network they are those of the last convolution (behind its batch norm and a ReLU, which the
    network may have after a pool), or of the residual unit around it. Of backbones side by side
    the sums are added up.

    Args:
        model: From pixels to logits.
        images: uint8 [batch, 3, size, size].
        labels: Position of the label, int64 [batch].

    Returns:
        float32 [batch, size, size]; each map's highest value is 1, or all of it is 0. None where
        a backbone has no maps of its own places, as transformers, whose attention mixes them.
    """
    model.eval()
    backbones = _list_backbones(model)
    layers = [_find_pooled_maps(backbone, model, images[:1]) for backbone in backbones]
    layers = layers or [_find_last_maps(model)]
    if None in layers:
        return None
    kept: dict[nn.Module, Tensor] = {}
    with _watch([layer for layer in layers if layer], kept.__setitem__), torch.enable_grad():
        logits = model(images)
        wanted = logits.gather(1, labels[:, None].to(logits.device)).sum()
        gradients = torch.autograd.grad(wanted, list(kept.values()))
    heat = torch.zeros(len(images), 1, *images.shape[2:], device=logits.device)
    for maps, gradient in zip(kept.values(), gradients, strict=True):
        importance = gradient.mean(dim=(2, 3), keepdim=True)
        behind_relu = maps.detach() if backbones else maps.detach().clamp(min=0)
        weighed = (importance * behind_relu).sum(dim=1, keepdim=True)
        heat += nn.functional.interpolate(
            weighed, images.shape[2:], mode="bilinear", align_corners=False
        )
    heat.clamp_(min=0)
    peak = heat.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    return np.asarray((heat / peak).squeeze(1).float().cpu().numpy())


def _list_backbones(model: nn.Module) -> list[nn.Module]:
    """List the networks that are no layers of ours."""
    parts = [module for module in model.modules() if isinstance(module, SideBySide)]
    if parts:
        return list(parts[0].parts)
    own = (Residual, nn.Sequential)
    return [part for part in model.children() if [*part.children()] and not isinstance(part, own)]


def _find_pooled_maps(backbone: nn.Module, model: nn.Module, image: Tensor) -> nn.Module | None:
    """Find the layer that gives the last maps, by running the model once."""
    names = {type(module).__name__.lower() for module in backbone.modules()}
    if any("attention" in name for name in names):
        return None
    found: list[tuple[nn.Module, torch.Size]] = []
    layers = [module for module in backbone.modules() if not isinstance(module, POOLS)]
    tell = _watch(layers, lambda layer, output: found.append((layer, output.shape)))
    with tell, torch.no_grad():
        model(image)
    # What is pooled already has one place.
    maps = [(layer, shape) for layer, shape in found if len(shape) > 2 and shape[2:].numel() > 1]
    if not maps:
        return None
    layer, shape = maps[-1]
    # Photos are squares; where the last two are none, they are no places.
    return layer if len(shape) == 4 and shape[2] == shape[3] else None


def _find_last_maps(model: nn.Module) -> nn.Module:
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)][-1]
    # A unit adds what skips it to what its last convolution gives.
    around = (m for m in model.modules() if isinstance(m, Residual) and last in m.modules())
    return next(around, last)


@contextmanager
def _watch(
    layers: Sequence[nn.Module], tell: Callable[[nn.Module, Tensor], object]
) -> Iterator[None]:
    """Tell each output of these layers while the model runs in this thread."""
    own = get_ident()  # the demo's other visitors have the same network

    def hook(layer: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor) and get_ident() == own:
            tell(layer, output)

    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for registered in hooks:
            registered.remove()
