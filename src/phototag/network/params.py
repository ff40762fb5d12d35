"""Params of the network and of the cached features."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from phototag.base.errors import InputError
from phototag.base.parallel import Backend
from phototag.base.params import Float, NonNegativeInt, ParamGroup, PositiveInt, SizeParams


class ConvParams(ParamGroup):
    """One conv block: convolution, max pooling, ReLU and residual units.

    `pool: 1` disables pooling. `pool_stride` defaults to `pool`, as in PyTorch.
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
        raise ValueError("expected null, a name, or a list that contains one name per backbone")
    return tuple(value) if isinstance(value, list) else value


Weights = str | tuple[str, ...] | None  # `model.weights`; a tuple has one entry per backbone
Pairs = tuple[tuple[str, str | None], ...]  # name and weights of each backbone
GlobalPool = Literal["none", "mean", "max", "mean-max"]


class FeatureSpec(NamedTuple):
    """All settings that the features of a photo depend on.

    Attributes:
        pairs: Name and weights of each backbone.
        size: Side of the photos that the backbones process, in pixels (`resize.size`).
        global_pool: Pooling of the feature maps or tokens of each backbone (`model.global_pool`).
        power: Exponent of the power transform of the pooled features (`model.power`).
    """

    pairs: Pairs
    size: int
    global_pool: GlobalPool = "none"
    power: float = 1.0


def pair_backbones(name: str, weights: Weights) -> Pairs:
    """Return the name and the weights of each backbone, or `()` for the network `conv`."""
    if name == "conv":
        return ()
    names = name.split("+")
    given = weights if isinstance(weights, tuple) else [weights] * len(names)
    return tuple(zip(names, given, strict=True))


class ModelParams(ParamGroup):
    """The group `model`.

    The network `conv` consists of the conv blocks in `conv`, hidden linear layers with the widths
    in `linear`, and an output layer. Any other `name` names a backbone, or several backbones joined
    by `+`, and the head is a linear layer. In this case, only `weights`, `freeze`, `global_pool`
    and `power` also apply. If the backbones are frozen, `linear` and `dropout` apply too.
    """

    name: Annotated[str, Field(min_length=1)] = "conv"
    weights: Annotated[Weights, BeforeValidator(_read_weights)] = None
    freeze: bool = False
    init: Literal["he", "pytorch"]
    batch_norm: bool = False
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    global_pool: GlobalPool = "none"
    power: Annotated[Float, Field(gt=0, le=1)] = 1.0
    # YAML has no tuples, and pydantic's strict mode would refuse a list for a tuple.
    conv: Annotated[tuple[ConvParams, ...], Field(min_length=1, strict=False)]
    linear: Annotated[tuple[PositiveInt, ...], Field(strict=False)]

    @property
    def backbones(self) -> Pairs:
        """Name and weights of each backbone; an empty tuple for the network `conv`."""
        return pair_backbones(self.name, self.weights)

    def features(self, size: int) -> FeatureSpec:
        """Return the settings of the backbones' features, for photos of `size` pixels per side."""
        return FeatureSpec(self.backbones, size, self.global_pool, self.power)

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
                f"name {self.name}: expected names of torchvision or timm backbones joined by +"
            )
        given = len(self.weights) if isinstance(self.weights, tuple) else len(names)
        if self.name != "conv" and given != len(names):
            raise ValueError(
                f"weights has {given} entries for the {len(names)} backbones in name: "
                "list one entry per backbone"
            )
        if self.frozen and self.weights is None:
            raise ValueError(
                "freeze requires pretrained weights, but weights is null: set weights to DEFAULT, "
                "or set freeze to false"
            )
        return self


class FinetuneParams(ParamGroup):
    """The group `finetune`: settings for the further training of pretrained backbones."""

    linear_probe_first: bool = True
    first_lr: Annotated[Float, Field(gt=0, le=1)] = 0.1
    freeze_batch_norm: bool = True


class EmbedParams(ParamGroup):
    """The group `embed`: the backend that computes the features of frozen backbones."""

    backend: Backend = "sequential"


class NetworkParams(ParamGroup):
    """Params that the `embed` stage reads."""

    resize: SizeParams
    embed: EmbedParams = EmbedParams()
    model: ModelParams
    finetune: FinetuneParams = FinetuneParams()


def uses_cached_features(
    name: str, weights: Weights, freeze: bool, linear_probe_first: bool
) -> bool:
    """Return whether training reads features that the `embed` stage computes once per photo.

    This is the case if the pretrained backbones are frozen, or if fine-tuning starts with a linear
    probe. Otherwise, for example for the network `conv`, the `embed` stage writes an empty array.
    """
    return name != "conv" and weights is not None and (freeze or linear_probe_first)


def feature_map_side(spec: ModelParams, size: int) -> int:
    """Return the side length of the feature map after the conv blocks, in pixels.

    A convolution or pooling maps side n to `floor((n + 2 * padding - window) / stride) + 1`.

    Raises:
        InputError: The kernel or pool of a block is larger than the feature map that the block
            receives. The message names the block.
    """
    side = size
    for number, block in enumerate(spec.conv):
        for window, stride, padding in (
            (block.kernel, block.stride, block.padding),
            (block.pool, block.pool_stride or block.pool, 0),
        ):
            if side + 2 * padding < window:
                raise InputError(
                    f"model.conv.{number}: the feature map of {side} x {side} pixels is smaller "
                    f"than the kernel or pool of size {window} (resize.size is {size}): increase "
                    "resize.size, or reduce kernel, stride or pool"
                )
            side = (side + 2 * padding - window) // stride + 1
    return side
