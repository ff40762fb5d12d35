"""Params of the network and of cached features."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from phototag.base.errors import InputError
from phototag.base.parallel import Backend
from phototag.base.params import Float, NonNegativeInt, ParamGroup, PositiveInt


class ConvParams(ParamGroup):
    """One block: convolution, max pooling, ReLU, then residual units.

    `pool` 1 means no pooling; `pool_stride` defaults to `pool`, as in PyTorch.
    """

    out: PositiveInt
    kernel: PositiveInt
    stride: PositiveInt = 1
    padding: NonNegativeInt = 0
    pool: PositiveInt = 1
    pool_stride: PositiveInt | None = None
    residual: NonNegativeInt = 0


def _read_weights(value: Any) -> Any:
    names = value if isinstance(value, list | tuple) else [value]
    if value is not None and not all(isinstance(name, str) and name for name in names):
        raise ValueError("expected null, a name, or a list with one name per backbone")
    return tuple(value) if isinstance(value, list) else value


Weights = str | tuple[str, ...] | None  # `model.weights`; a tuple has one entry per backbone
Pairs = tuple[tuple[str, str | None], ...]  # name and weights of each backbone


def pair_backbones(name: str, weights: Weights) -> Pairs:
    """Return the name and the weights of each backbone; an empty tuple for the network `conv`."""
    if name == "conv":
        return ()
    names = tuple(name.split("+"))
    if isinstance(weights, tuple):
        return tuple(zip(names, weights, strict=True))
    return tuple((name, weights) for name in names)


class ModelParams(ParamGroup):
    """The group `model`: conv blocks, then hidden linear layers; the output layer is implied.

    If `name` is not `conv`, it names a backbone, or several joined by `+`, followed by one linear
    layer; only `weights` and `freeze` apply then. `linear` and `dropout` also apply if the
    backbones are frozen.
    """

    name: Annotated[str, Field(min_length=1)] = "conv"
    weights: Annotated[Weights, BeforeValidator(_read_weights)] = None
    freeze: bool = False
    init: Literal["he", "pytorch"]
    batch_norm: bool = False
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    global_pool: Literal["none", "mean", "max"] = "none"
    # YAML has no tuples, and strict mode refuses a list for one.
    conv: Annotated[tuple[ConvParams, ...], Field(min_length=1, strict=False)]
    linear: Annotated[tuple[PositiveInt, ...], Field(strict=False)]

    @property
    def backbones(self) -> Pairs:
        """Name and weights of each backbone; empty for the network `conv`."""
        return pair_backbones(self.name, self.weights)

    @property
    def pretrained(self) -> bool:
        """Whether the network has backbones with pretrained weights."""
        return self.weights is not None and self.name != "conv"

    @property
    def frozen(self) -> bool:
        """Whether the backbones are frozen, so that their features can be cached."""
        return self.freeze and self.name != "conv"

    @property
    def finetuned(self) -> bool:
        """Whether pretrained backbones are trained further."""
        return self.pretrained and not self.freeze

    @model_validator(mode="after")
    def _check_backbones(self) -> "ModelParams":
        names = self.name.split("+")
        if len(names) > 1 and ("conv" in names or "" in names):
            raise ValueError(
                f"name {self.name}: expected backbones of torchvision or timm joined by +"
            )
        given = len(self.weights) if isinstance(self.weights, tuple) else len(names)
        if self.name != "conv" and given != len(names):
            raise ValueError(
                f"weights has {given} entries for the {len(names)} backbones of name: "
                "list one per backbone"
            )
        if self.frozen and self.weights is None:
            raise ValueError("freeze requires pretrained weights, and weights is null: name some")
        return self


class FinetuneParams(ParamGroup):
    """The group `finetune`: how pretrained backbones are trained further."""

    linear_probe_first: bool = True
    first_lr: Annotated[Float, Field(gt=0, le=1)] = 0.1
    freeze_batch_norm: bool = True


class EmbedParams(ParamGroup):
    """The group `embed`: where the features of frozen backbones are computed."""

    backend: Backend = "sequential"


class NetworkParams(ParamGroup):
    """Params that the `embed` stage reads."""

    embed: EmbedParams = EmbedParams()
    model: ModelParams
    finetune: FinetuneParams = FinetuneParams()


def uses_cached_features(
    name: str, weights: Weights, freeze: bool, linear_probe_first: bool
) -> bool:
    """Return whether training reads features that `embed` computes once per photo.

    True for pretrained backbones that are frozen, or whose fine-tuning starts with a linear probe.
    The report's network has neither, so its `embed` stage writes an empty array.
    """
    return name != "conv" and weights is not None and (freeze or linear_probe_first)


def feature_map_side(spec: ModelParams, size: int) -> int:
    """Return the side of the feature map after the conv blocks, in pixels.

    Each convolution and each pooling maps a side n to floor((n + 2 padding - window) / stride) + 1.

    Raises:
        InputError: A window is larger than its feature map; the message names the block.
    """
    side = size
    for number, block in enumerate(spec.conv):
        for window, stride, padding in (
            (block.kernel, block.stride, block.padding),
            (block.pool, block.pool_stride or block.pool, 0),
        ):
            if side + 2 * padding < window:
                raise InputError(
                    f"model.conv.{number}: its feature map of {side} x {side} pixels is smaller "
                    f"than its window of {window} (photos of resize.size {size}): enlarge "
                    "resize.size or reduce kernel, stride or pool"
                )
            side = (side + 2 * padding - window) // stride + 1
    return side
