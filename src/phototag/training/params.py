"""Params of the `train` stage."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from phototag.base.params import (
    Float,
    NonNegativeFloat,
    NonNegativeInt,
    ParamGroup,
    PositiveFloat,
    PositiveInt,
    Share,
    SizeParams,
)
from phototag.dataset.params import DataParams
from phototag.metrics.selection import SelectionMetric
from phototag.network.params import FinetuneParams, ModelParams


class AugmentParams(ParamGroup):
    """The group `augment`: random changes of the training photos; the value 0 disables a change."""

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


class TrainParams(ParamGroup):
    """The group `train`: loss, regularisation and devices."""

    loss: Literal["bce", "focal", "asymmetric"]
    label_smoothing: Annotated[Float, Field(ge=0, lt=1)]
    ema: Annotated[Float, Field(ge=0, lt=1)]
    clip_norm: NonNegativeFloat
    early_stopping: NonNegativeInt
    accumulate: PositiveInt = 1
    compile: bool
    devices: PositiveInt
    num_nodes: PositiveInt


class TrainingParams(ParamGroup):
    """Params that the `train` stage reads."""

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
    resize: SizeParams
    augment: AugmentParams
    model: ModelParams
    finetune: FinetuneParams = FinetuneParams()
    train: TrainParams

    @model_validator(mode="after")
    def _check_loss(self) -> "TrainingParams":
        if self.pos_weight and self.train.loss != "bce":
            raise ValueError(
                f"pos_weight requires loss bce, not {self.train.loss}: set pos_weight to false or "
                "train.loss to bce"
            )
        if self.train.label_smoothing and self.train.loss == "asymmetric":
            # Smoothing gives each negative a small positive target. Its loss would dominate,
            # because the asymmetric loss nearly ignores easy negatives: with label_smoothing 0.1,
            # clear negatives got probability 0.42.
            raise ValueError(
                "train.label_smoothing requires loss bce or focal, not asymmetric: set "
                "train.label_smoothing to 0, or set train.loss to bce or focal"
            )
        return self

    @model_validator(mode="after")
    def _check_augmentations(self) -> "TrainingParams":
        active = [key for key, value in self.augment.model_dump().items() if value]
        if self.model.frozen and active:
            raise ValueError(
                f"augment.{active[0]} has no effect on the cached features of frozen backbones: "
                f"set augment.{active[0]} to 0 or model.freeze to false"
            )
        return self

    @model_validator(mode="after")
    def _check_linear_probe(self) -> "TrainingParams":
        if self.optimizer != "lbfgs":
            return self
        if not self.model.frozen:
            fix = "model.name to a backbone" if self.model.freeze else "model.freeze to true"
            raise ValueError(
                f"optimizer lbfgs requires the cached features of frozen backbones: set {fix}, or "
                "choose another optimizer"
            )
        for key, value, off in (
            ("model.linear", self.model.linear, "[]"),
            ("model.dropout", self.model.dropout, "0"),
            ("train.ema", self.train.ema, "0"),
            ("train.clip_norm", self.train.clip_norm, "0"),
            ("train.compile", self.train.compile, "false"),
        ):
            if value:
                raise ValueError(
                    f"optimizer lbfgs does not support {key}: set {key} to {off}, or choose "
                    "another optimizer"
                )
        return self

    @property
    def selection_metric(self) -> SelectionMetric:
        """Metric that selects the best epoch or the L2 strengths.

        The metric is `val_loss` if the loss is `bce`, `pos_weight` is false and label smoothing is
        0. All other losses intentionally shift the probabilities away from the label frequencies:
        the val loss can increase while the network improves. In these cases, the metric is `mAP`,
        which depends only on the ranking of the photos.
        """
        plain = self.train.loss == "bce" and not self.pos_weight
        return "val_loss" if plain and not self.train.label_smoothing else "mAP"

    def train_settings(self) -> dict[str, Any]:
        """Return the params that determine the trained weights, as plain values."""
        unused = {"data": True, "resize": True}
        settings = self.model_dump(include=set(TrainingParams.model_fields), exclude=unused)
        settings["resize.size"] = self.resize.size
        # The weights depend on their product, the number of processes. `training_key` adds it.
        del settings["train"]["devices"], settings["train"]["num_nodes"]
        return settings
