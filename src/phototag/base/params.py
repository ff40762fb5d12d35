"""Typed, frozen params, read once from params.yaml."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from phototag.base.errors import InputError
from phototag.base.files import read_source
from phototag.base.parallel import Backend


def _parse_float(value: Any) -> Any:
    # `dvc exp run -S lr=0.00001` writes 1e-05, which PyYAML (YAML 1.1) reads as a string.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Float = Annotated[float, BeforeValidator(_parse_float), Field(allow_inf_nan=False)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[Float, Field(ge=0, le=1)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataParams(_Group):
    """Where the photos come from; `labels` empty takes every label file."""

    raw: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(strict=False)]


class SampleParams(_Group):
    """The embedded data set."""

    num_images: PositiveInt


class ResizeParams(_Group):
    """Photos become square arrays of `size` pixels a side, and what is wrong is told."""

    size: PositiveInt
    min_side: PositiveInt
    # Over twice its own limit Pillow refuses to open a file, whatever is allowed here.
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)]
    on_problem: Literal["reject", "fail"]
    max_rejected: Annotated[Float, Field(ge=0, le=1)]
    duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    backend: Backend


class SplitParams(_Group):
    """Fractions of the photos held out; train takes the rest."""

    val: Annotated[Float, Field(gt=0, lt=1)]
    test: Annotated[Float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _leave_some_for_train(self) -> "SplitParams":
        if self.val + self.test >= 1:
            raise ValueError("val and test together must leave something for train")
        return self


class ConvParams(_Group):
    """One block: convolution, max pool, ReLU, then residual units.

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
        raise ValueError("input should be null, a name, or a list of one name a network")
    return tuple(value) if isinstance(value, list) else value


Weights = Annotated[str | tuple[str, ...] | None, BeforeValidator(_read_weights)]


def pair_backbones(
    name: str, weights: str | tuple[str, ...] | None
) -> tuple[tuple[str, str | None], ...]:
    """Return each backbone's name and its weights; none where the network is conv."""
    if name == "conv":
        return ()
    names = tuple(name.split("+"))
    if isinstance(weights, tuple):
        return tuple(zip(names, weights, strict=True))
    return tuple((name, weights) for name in names)


def keeps_features(
    name: str, weights: str | tuple[str, ...] | None, freeze: bool, head_first: bool
) -> bool:
    """Return whether features of backbones, as they came, are computed once for all photos.

    Args:
        name: `model.name`.
        weights: `model.weights`.
        freeze: `model.freeze`.
        head_first: `finetune.head_first`.
    """
    return name != "conv" and weights is not None and (freeze or head_first)


class ModelParams(_Group):
    """The network: conv blocks, then hidden linear layers; the output layer is implied.

    With another `name` than conv it is the backbone of that name, or several joined by +, and one
    linear layer; all else but `weights` and `freeze` is left aside. Over frozen backbones the
    linear layers and dropout are as here.
    """

    name: Annotated[str, Field(min_length=1)] = "conv"
    weights: Weights = None
    freeze: bool = False
    init: Literal["he", "pytorch"]
    batch_norm: bool = False
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    global_pool: Literal["none", "mean", "max"] = "none"
    # YAML has lists only; strict mode would refuse one for a tuple.
    conv: Annotated[tuple[ConvParams, ...], Field(min_length=1, strict=False)]
    linear: Annotated[tuple[PositiveInt, ...], Field(strict=False)]

    @property
    def backbones(self) -> tuple[tuple[str, str | None], ...]:
        """Each backbone's name and its weights; none where the network is conv."""
        return pair_backbones(self.name, self.weights)

    @property
    def pretrained(self) -> bool:
        """Whether there are backbones that bring weights."""
        return self.weights is not None and self.name != "conv"

    @property
    def frozen(self) -> bool:
        """Whether backbones are kept as they came, so that features are computed once."""
        return self.freeze and self.name != "conv"

    @property
    def finetuned(self) -> bool:
        """Whether backbones bring weights, and train on."""
        return self.pretrained and not self.freeze

    @model_validator(mode="after")
    def _check_backbones(self) -> "ModelParams":
        names = self.name.split("+")
        if len(names) > 1 and ("conv" in names or "" in names):
            raise ValueError(f"{self.name}: + joins names of torchvision or timm, such as a+b")
        given = len(self.weights) if isinstance(self.weights, tuple) else len(names)
        if self.name != "conv" and given != len(names):
            raise ValueError(f"weights lists {given} for the {len(names)} of name: one for each")
        if self.frozen and self.weights is None:
            raise ValueError("freeze keeps what weights bring, and weights is null: name some")
        return self


class EmbedParams(_Group):
    """Where features of frozen backbones are computed."""

    backend: Backend


class AugmentParams(_Group):
    """Changes drawn for each photo of a batch in training; 0 switches one off."""

    flip_horizontal: Share
    flip_vertical: Share
    crop: Annotated[Float, Field(ge=0, lt=0.5)]
    zoom: Annotated[Float, Field(ge=0, lt=1)]
    rotate: Annotated[Float, Field(ge=0, le=180)]
    brightness: NonNegativeFloat
    contrast: NonNegativeFloat
    saturation: NonNegativeFloat
    hue: Annotated[Float, Field(ge=0, le=0.5)]
    grayscale: Share
    mixup: Annotated[Float, Field(ge=0, le=0.5)]


class TrainParams(_Group):
    """What the report did not use, and where to train."""

    loss: Literal["bce", "focal", "asymmetric"]
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)]
    ema: Annotated[Float, Field(ge=0, lt=1)]
    clip_norm: NonNegativeFloat
    early_stopping: NonNegativeInt
    accumulate: PositiveInt = 1
    compile: bool
    devices: PositiveInt
    num_nodes: PositiveInt


class FinetuneParams(_Group):
    """How weights that backbones bring are kept from being lost, where they train on."""

    head_first: bool
    first_lr: Annotated[Float, Field(gt=0, le=1)]
    freeze_batch_norm: bool


class EvaluateParams(_Group):
    """How thresholds are chosen, and how sure the scores are."""

    pooling: NonNegativeFloat
    calibrate: bool
    resamples: Annotated[int, Field(ge=20)]


class RegistryParams(_Group):
    """Who may become champion."""

    experiments: bool


class Params(_Group):
    """All of params.yaml."""

    seed: NonNegativeInt
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    batch_size: PositiveInt
    epochs: PositiveInt
    optimizer: Literal["adam", "adamw", "adagrad", "sgd", "lbfgs"]
    momentum: Annotated[Float, Field(ge=0, lt=1)]
    schedule: Literal["constant", "cosine", "one-cycle"]
    warmup: NonNegativeFloat
    pos_weight: bool
    precision: Literal["auto", "fp32", "bf16"]
    data: DataParams
    sample: SampleParams
    resize: ResizeParams
    split: SplitParams
    embed: EmbedParams = EmbedParams(backend="sequential")
    augment: AugmentParams
    model: ModelParams
    finetune: FinetuneParams = FinetuneParams(head_first=True, first_lr=0.1, freeze_batch_norm=True)
    train: TrainParams
    evaluate: EvaluateParams
    registry: RegistryParams = RegistryParams(experiments=False)

    @model_validator(mode="after")
    def _check_frozen(self) -> "Params":
        drawn = [key for key, value in self.augment.model_dump().items() if value]
        if self.model.frozen and drawn:
            raise ValueError(
                f"augment.{drawn[0]} changes photos, and model.freeze keeps their features: set "
                "it to 0, or freeze to false"
            )
        return self

    @model_validator(mode="after")
    def _check_solver(self) -> "Params":
        if self.optimizer != "lbfgs":
            return self
        if not self.model.frozen:
            mend = (
                "name a backbone in model.name" if self.model.freeze else "set model.freeze to true"
            )
            raise ValueError(
                f"optimizer lbfgs solves a head over kept features: {mend}, or take another "
                "optimizer"
            )
        others = {
            "model.linear": self.model.linear,
            "model.dropout": self.model.dropout,
            "train.ema": self.train.ema,
            "train.clip_norm": self.train.clip_norm,
            "train.compile": self.train.compile,
        }
        for key, value in others.items():
            if value:
                off = {tuple: "[]", bool: "false"}.get(type(value), "0")
                raise ValueError(
                    f"optimizer lbfgs solves one linear layer at once: set {key} to {off}, or take "
                    "another optimizer"
                )
        return self

    def train_settings(self) -> dict[str, Any]:
        """Return the params on which the trained weights depend, as plain values."""
        knobs = {"seed", "lr", "weight_decay", "batch_size", "epochs", "optimizer", "momentum"}
        knobs |= {"schedule", "warmup", "pos_weight", "precision"}
        settings = self.model_dump(include=knobs | {"augment", "model", "finetune", "train"})
        # How many processes there are together counts, not how they are spread over machines.
        del settings["train"]["devices"], settings["train"]["num_nodes"]
        return settings


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: The file is missing, not UTF-8 or no YAML, or a key is unknown, missing or out
            of range.
    """
    try:
        values = yaml.safe_load(read_source(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {describe_problems(error)}") from None


def describe_problems(error: ValidationError) -> str:
    """Tell what is wrong with params, key by key, in one line."""
    return "; ".join(_describe(problem) for problem in error.errors())


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    match problem["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is unknown (misspelt, or in the wrong group?)"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            message = f"{key}: {message[:1].lower()}{message[1:]}"
            # Of a whole group the message has said what is wrong with it.
            given = problem["input"]
            return message if isinstance(given, dict) else f"{message}, not {given!r}"
