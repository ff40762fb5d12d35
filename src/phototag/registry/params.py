"""Params of the stage `register`."""

from phototag.base.params import NonNegativeInt, ParamGroup
from phototag.evaluation.params import EvaluateParams


class RegistryParams(ParamGroup):
    """Group `registry` in params.yaml: whether models of DVC experiments are registered."""

    experiments: bool


class RegistrationParams(ParamGroup):
    """Params that the stage `register` reads."""

    seed: NonNegativeInt
    evaluate: EvaluateParams
    registry: RegistryParams = RegistryParams(experiments=False)
