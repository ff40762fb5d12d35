"""Params of the `sample` stage."""

from pydantic import ConfigDict

from phototag.base.params import NonNegativeInt, ParamGroup, PositiveInt


class RawParams(ParamGroup):
    """The part of the group `data` that the `sample` stage reads: the path of the photos."""

    model_config = ConfigDict(extra="ignore")

    raw: str


class SampleParams(ParamGroup):
    """The group `sample`: size of the synthetic dataset."""

    num_images: PositiveInt


class SyntheticParams(ParamGroup):
    """Params that the `sample` stage reads."""

    seed: NonNegativeInt
    sample: SampleParams
    data: RawParams
