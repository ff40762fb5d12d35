"""Params of the `register` stage."""

from phototag.base.params import NonNegativeInt, ParamGroup
from phototag.evaluation.params import EvaluateParams


class RegistryParams(ParamGroup):
    """Group `registry` in params.yaml: whether models of DVC experiments are registered."""

    experiments: bool


class RegistrationParams(ParamGroup):
    """Params that the `register` stage reads."""

    seed: NonNegativeInt
    evaluate: EvaluateParams
    registry: RegistryParams = RegistryParams(experiments=False)
