"""Params of the stage `register`."""

from typing import Annotated

from pydantic import AfterValidator

from phototag.base.params import NonNegativeInt, ParamGroup
from phototag.dataset.params import DataParams
from phototag.evaluation.params import EvaluateParams
from phototag.tracking.naming import check_name


class RegistryParams(ParamGroup):
    """Group `registry` in params.yaml.

    Attributes:
        name: Name of the MLflow experiment and of the registered model, or None to use the name of
            the project's folder.
        experiments: Whether models of DVC experiments are registered.
    """

    name: Annotated[str | None, AfterValidator(check_name)] = None
    experiments: bool


class RegistrationParams(ParamGroup):
    """Params that the stage `register` reads."""

    seed: NonNegativeInt
    data: DataParams
    evaluate: EvaluateParams
    registry: RegistryParams = RegistryParams(experiments=False)
