"""Pooling of the feature maps or tokens of a backbone, and the power transform of features."""

from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from phototag.base.errors import InputError
from phototag.network.params import GlobalPool

EPSILON = 1e-6  # added to |x| in the power transform; without it, the gradient is infinite at 0


class MapPool(nn.Module):
    """Pool feature maps to their means, to their maxima, or to both (`mean-max`)."""

    def __init__(self, global_pool: GlobalPool) -> None:
        super().__init__()
        self.global_pool = global_pool

    def forward(self, maps: Tensor) -> Tensor:
        """Map [batch, channels, height, width] to [batch, channels], or twice as many features."""
        parts = [maps.mean((2, 3))] if "mean" in self.global_pool else []
        parts += [maps.amax((2, 3))] if "max" in self.global_pool else []
        return torch.cat(parts, dim=1)


class PowerTransform(nn.Module):
    """Transform features x to sign(x) * |x|^power, which makes their distribution less skewed."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, features: Tensor) -> Tensor:
        """Transform each value of a tensor of any shape."""
        if self.power == 1:
            return features
        return features * (features.abs() + EPSILON) ** (self.power - 1)


class PooledBackbone(nn.Module):
    """A backbone whose feature maps or tokens are pooled, and whose features are transformed.

    Maps are pooled by `MapPool`, and so are the patches of a transformer. However, `mean-max` joins
    the class token, or the output of attention pooling, with the mean of the patches, if the
    transformer has one of the two.

    Attributes:
        network: Backbone of timm or torchvision; `cut_at_pooling` returns that of torchvision.
    """

    network: Any
    pool: MapPool

    def __init__(self, network: nn.Module, global_pool: GlobalPool, power: float) -> None:
        super().__init__()
        self.network, self.pool = network, MapPool(global_pool)
        self.transform = PowerTransform(power)
        tokens = (getattr(network, name, None) for name in ("cls_token", "class_token"))
        self.has_class_token = any(token is not None for token in tokens)
        self.num_prefix = getattr(network, "num_prefix_tokens", int(self.has_class_token))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised photos, [batch, 3, size, size], to features, float [batch, width]."""
        compute = self.network if self.pool.global_pool == "none" else self._pool
        features: Tensor = self.transform(compute(images))
        return features

    def _pool(self, images: Tensor) -> Tensor:
        maps: Tensor = getattr(self.network, "forward_features", self.network)(images)
        kind = [*maps.shape[1:]] if isinstance(maps, Tensor) else type(maps).__name__
        if not isinstance(maps, Tensor) or maps.ndim not in (3, 4):
            raise InputError(f"its output before pooling is {kind}")
        if maps.ndim == 4:
            is_nhwc = getattr(self.network, "output_fmt", "") == "NHWC"
            return self.pool.forward(maps.permute(0, 3, 1, 2) if is_nhwc else maps)
        patches = maps[:, self.num_prefix :]
        attention = getattr(self.network, "attn_pool", None)
        if self.pool.global_pool == "mean-max" and (self.has_class_token or attention is not None):
            summary = (
                maps[:, 0]
                if attention is None
                else self.network.forward_head(maps, pre_logits=True)
            )
            return torch.cat([summary, patches.mean(dim=1)], dim=1)
        return self.pool.forward(patches.transpose(1, 2)[..., None])


class _ShallowTracer(fx.Tracer):  # type: ignore[misc]
    """Tracer that records the calls of a network's children, and nothing inside the children."""

    def is_leaf_module(self, _module: nn.Module, _name: str) -> bool:
        return True


@torch.no_grad()
def cut_at_pooling(network: nn.Module, example: Tensor) -> nn.Module:
    """Return the part of a torchvision network that computes the feature maps or tokens.

    `example` contains photos, float [batch, 3, size, size].
    """
    graph = _ShallowTracer().trace(network)
    ShapeProp(fx.GraphModule(network, graph).eval()).propagate(example)
    maps = [
        node
        for node in takewhile(lambda node: not _is_pool(node, network), graph.nodes)
        if len(getattr(node.meta.get("tensor_meta"), "shape", ())) in (3, 4)
    ]
    graph.output_node().args = (maps[-1],)
    graph.eliminate_dead_code()
    cut: nn.Module = fx.GraphModule(network, graph)
    return cut.train()


def _is_pool(node: fx.Node, network: nn.Module) -> bool:
    """Return whether a node pools feature maps to vectors."""
    if node.op != "call_module":
        return node.target is nn.functional.adaptive_avg_pool2d
    *_, last = network.get_submodule(str(node.target)).modules()
    return isinstance(last, nn.AdaptiveAvgPool2d)
