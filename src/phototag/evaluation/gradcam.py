"""Where in a photo the network saw a label (Grad-CAM; Selvaraju et al., 2017)."""

import numpy as np
import torch
from torch import Tensor, nn

from phototag.network.model import Residual


def locate_labels(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Compute one heat map a photo, of the label asked for.

    The feature maps of the last convolution (behind its batch norm and a ReLU, which the network
    may have after a pool), or of the residual unit around it, are summed, each weighed by the mean
    gradient of the label's logit with respect to it; what speaks against the label is cut off.

    Args:
        model: From pixels to logits; it has a convolution.
        images: uint8 [batch, 3, size, size].
        labels: Position of the label, int64 [batch].

    Returns:
        float32 [batch, size, size]; each map's highest value is 1, or all of it is 0.
    """
    kept: list[Tensor] = []
    hook = _find_last_maps(model).register_forward_hook(
        lambda module, given, output: kept.append(output)
    )
    model.eval()
    try:
        with torch.enable_grad():
            logits = model(images)
            wanted = logits.gather(1, labels[:, None].to(logits.device)).sum()
            gradient = torch.autograd.grad(wanted, kept[0])[0]
    finally:
        hook.remove()
    importance = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (importance * kept[0].detach().clamp(min=0)).sum(dim=1, keepdim=True).clamp(min=0)
    maps = nn.functional.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)
    peak = maps.amax(dim=(2, 3), keepdim=True)
    return np.asarray((maps / peak.clamp(min=1e-12)).squeeze(1).float().cpu().numpy())


def _find_last_maps(model: nn.Module) -> nn.Module:
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)][-1]
    # A unit adds what skips it to what its last convolution gives.
    around = (m for m in model.modules() if isinstance(m, Residual) and last in m.modules())
    return next(around, last)
