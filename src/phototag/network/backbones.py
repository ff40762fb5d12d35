"""Backbones: networks from torchvision and timm without their output layers."""

import difflib
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from phototag.base.errors import InputError
from phototag.network.params import GlobalPool, Pairs
from phototag.network.pooling import PooledBackbone, cut_at_pooling

TIMM = "timm/"  # prefix of `model.name` that selects a network from timm

Built = tuple[nn.Module, list[float], list[float]]  # see `Backbone`: network, mean, std


@dataclass(frozen=True)
class Backbone:
    """A network without its output layer, and the properties of its pretrained weights.

    Attributes:
        network: Network of the library, to which weights files belong. Its weights are random.
        features: Module that maps normalised photos, float [batch, 3, size, size], to features,
            float [batch, width]: `network`, or a `PooledBackbone` that contains it.
        width: Number of features.
        mean: Channel means that the pretrained weights require for normalisation, 0..1, [3].
        std: Channel standard deviations that the weights require for normalisation, 0..1, [3].
    """

    network: nn.Module
    features: nn.Module
    width: int
    mean: list[float]
    std: list[float]


def build_backbone(
    name: str,
    weights: str | None,
    size: int,
    global_pool: GlobalPool = "none",
    power: float = 1.0,
) -> Backbone:
    """Build a network from torchvision or timm without its output layer, for photos of one size.

    Auxiliary heads are also removed. A network with a fixed input size is built for `size`. The
    pretrained weights are not loaded: `weights` selects the normalisation that they require.
    `global_pool` and `power` are those of the group `model`.

    Raises:
        InputError: There is no such network, it does not support photos of this size, or it has no
            feature maps or tokens to pool.
    """
    build = _build_timm if name.startswith(TIMM) else _build_torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hide the deprecation warnings of the libraries
        try:
            network, mean, std = build(name, weights, size)
            example = next(network.parameters()).new_zeros(2, 3, size, size)
            width = _count_features(network, example)
        except (InputError, NotImplementedError):
            raise
        except Exception as error:  # networks raise errors of many types for unsupported sizes
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"model.name: {name} does not support photos of {size} x {size} pixels ({reason}): "
                f"choose another network, or set resize.size to {native_size(name)}"
            ) from None
    features = network
    if (global_pool, power) != ("none", 1):
        if global_pool != "none" and not name.startswith(TIMM):
            network = cut_at_pooling(network, example)
        features = PooledBackbone(network, global_pool, power)
        try:
            width = _count_features(features, example)
        except InputError as error:
            raise InputError(
                f"model.global_pool: {name} cannot be pooled ({error}): set model.global_pool to "
                "none, or choose another network"
            ) from None
    return Backbone(network, features, width, mean, std)


def sketch_backbone(*settings: Any) -> Backbone:
    """Call `build_backbone` with these arguments, but allocate no memory for the weights."""
    try:
        with torch.device("meta"):
            return build_backbone(*settings)
    except NotImplementedError:  # RegNets read tensor values, which the meta device lacks
        return build_backbone(*settings)


@torch.no_grad()
def _count_features(network: nn.Module, example: torch.Tensor) -> int:
    features = network.eval()(example)
    network.train()
    if features.ndim != 2:
        raise ValueError(f"its output has shape {list(features.shape[1:])}: expected a vector")
    return int(features.shape[1])


def _build_torchvision(name: str, weights: str | None, size: int) -> Built:
    from torchvision import models  # the import takes seconds, and `conv` does not need it

    known = models.list_models(models)
    if name not in known:
        raise InputError(
            f"model.name: torchvision has no classifier {name!r}: choose one of "
            f"{', '.join(known)}, or {TIMM}NAME for a network from timm"
        )
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The weights of these two networks require a different normalisation. `transform_input`
        # converts the photos to it.
        options = {"aux_logits": False, "transform_input": weights is not None}
        options["init_weights"] = weights is None
    elif name.startswith("vit_"):
        options = {"image_size": size}
    elif name.startswith("maxvit"):
        options = {"input_size": (size, size)}
    network: nn.Module = models.get_model(name, weights=None, **options)
    known_weights = models.get_model_weights(name)
    entry = known_weights.__members__.get(weights or "DEFAULT", known_weights.DEFAULT)
    transforms = entry.transforms()
    layers = list(network.named_modules())
    # SqueezeNet has no linear layer: its output layer is the last convolution.
    head = [n for n, m in layers if isinstance(m, nn.Linear)] or [
        n for n, m in layers if isinstance(m, nn.Conv2d)
    ]
    network.set_submodule(head[-1], nn.Identity())
    return network, list(transforms.mean), list(transforms.std)


def required_packages(pairs: Pairs) -> list[str]:
    """Return the packages that backbones need; timm itself needs torchvision."""
    timm = any(name.startswith(TIMM) for name, _ in pairs)
    return ["timm"] * timm + ["torchvision"] * bool(pairs)


def import_timm() -> Any:
    """Import and return timm, or raise an InputError that names the command to install it."""
    if find_spec("timm") is None:
        raise InputError(
            f"model.name: networks {TIMM}NAME require timm, which is not installed: run "
            "`make setup-pretrained`"
        )
    return import_module("timm")


def _build_timm(name: str, weights: str | None, size: int) -> Built:
    timm, bare = import_timm(), name.removeprefix(TIMM)
    architecture, _, tag = bare.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 5)
        hint = f": similar names are {', '.join(near)}" if near else ""
        raise InputError(f"model.name: timm has no network {architecture!r}{hint}")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and bare not in tags:
        raise InputError(
            f"model.name: timm has no weights {tag!r} for {architecture}: choose one of "
            f"{', '.join(tags)}"
        )
    fixed = getattr(timm.get_pretrained_cfg(bare), "fixed_input_size", False)
    options = {"img_size": size} if fixed else {}
    network: nn.Module = timm.create_model(bare, pretrained=False, num_classes=0, **options)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    return network, list(config["mean"]), list(config["std"])


def native_size(name: str) -> int:
    """Return the side length of the photos for which a network was designed, in pixels."""
    if name.startswith(TIMM):
        return int(import_timm().get_pretrained_cfg(name.removeprefix(TIMM)).input_size[1])
    from torchvision import models

    return int(models.get_model_weights(name).DEFAULT.transforms().crop_size[0])
