"""Params of the `sample` stage."""

from phototag.base.params import NonNegativeInt, ParamGroup, PositiveInt


class SampleParams(ParamGroup):
    """The group `sample`: size of the synthetic dataset."""

    num_images: PositiveInt


class SyntheticParams(ParamGroup):
    """Params that the `sample` stage reads."""

    seed: NonNegativeInt
    sample: SampleParams
