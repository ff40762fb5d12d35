"""Batch norm that takes a whole batch's statistics, however its photos are spread."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from phototag.network import distributed


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's, over the photos of all processes, and for a single value a channel.

    PyTorch's own SyncBatchNorm works on GPUs alone, and not where a process has no photos.

    One value a channel (a batch of one photo, in a map of 1 x 1) has no variance: it is normalised
    as in evaluation, by the running statistics, and leaves them as they are.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps, float [batch, channels, side, side]; a process may have none."""
        if not self.training or (distributed.world_size() == 1 and _has_variance(maps)):
            normal: Tensor = super().forward(maps)
            return normal
        if distributed.world_size() == 1:
            return functional.batch_norm(
                maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        together: Tensor = self._normalize_together(maps)
        return together

    def _normalize_together(self, maps: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        values = maps.float()
        own = values.numel() // self.num_features
        mean = values.sum(dim=(0, 2, 3)) / max(own, 1)
        spread = (values - _each(mean)).square().sum(dim=(0, 2, 3))
        counts, means, spreads = _gather(own, mean, spread)
        # Chan, Golub and LeVeque (1979): no difference of large numbers.
        total = counts.sum()
        mean = (counts * means).sum(dim=0) / total
        spread = (spreads + counts * (means - mean).square()).sum(dim=0)
        with torch.no_grad():
            rate = self.momentum * (total > 1)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(spread / (total - 1).clamp(min=1), rate)
            self.num_batches_tracked += total > 1
        mean = torch.where(total > 1, mean, self.running_mean)
        variance = torch.where(total > 1, spread / total, self.running_var)
        scale = self.weight * (variance + self.eps).rsqrt()
        normal = (values - _each(mean)) * _each(scale) + _each(self.bias)
        return normal.to(maps.dtype)


class BatchNormAct(BatchNorm):
    """timm's BatchNormAct2d, which has an activation behind it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise and activate maps, float [batch, channels, side, side]."""
        activated: Tensor = self.act(self.drop(super().forward(maps)))
        return activated


def share_statistics(model: nn.Module) -> None:
    """Let every batch norm of a network count the photos of all processes; its state stays."""
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = BatchNorm
        elif type(layer).__name__ == "BatchNormAct2d":  # timm need not be installed
            layer.__class__ = BatchNormAct


def hide_from_compiler() -> None:
    """Keep what several processes do together out of the graphs of torch.compile.

    Not by a decorator: with it, each process that trains would import the compiler, for seconds.
    """
    hidden = torch.compiler.disable(BatchNorm._normalize_together)  # type: ignore[no-untyped-call]
    BatchNorm._normalize_together = hidden  # type: ignore[method-assign]


def freeze_biases(model: nn.Module) -> None:
    """Leave the bias of each convolution before a batch norm as it is.

    Batch norm takes off what it adds: its gradient is nothing but rounding. Adam makes a step as
    large as any other of that, and the running statistics, which lag behind, bring it into val.
    """
    for layers in model.modules():
        if isinstance(layers, nn.Sequential):
            for layer, following in itertools.pairwise(layers):
                normalised = isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d)
                if normalised and layer.bias is not None:
                    layer.bias.requires_grad_(False)


def hold_statistics(model: nn.Module) -> None:
    """Have batch norm normalise by the statistics that it has, and leave them; until `train()`."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


def _has_variance(maps: Tensor) -> bool:
    return maps.numel() > maps.shape[1]


def _gather(count: int, *rows: Tensor) -> tuple[Tensor, ...]:
    """Return each process's count, [processes, 1], and rows, [processes, channels] each."""
    own = torch.cat([rows[0].new_full((1,), count), *rows])
    places = own.new_zeros(distributed.world_size(), 1)
    places[distributed.rank()] = 1
    gathered: Tensor = _Sum.apply(places * own)
    return torch.split(gathered, [1, *(len(row) for row in rows)], dim=1)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's loss hangs on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return distributed.sum_over_processes(value.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return distributed.sum_over_processes(gradient.clone())


def _each(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
