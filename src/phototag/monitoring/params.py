"""Params of the `reference` stage."""

from phototag.base.params import NonNegativeInt, ParamGroup


class ReferenceParams(ParamGroup):
    """Params that the `reference` stage reads."""

    seed: NonNegativeInt
