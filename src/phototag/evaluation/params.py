"""Params of the `evaluate` stage."""

from typing import Annotated

from pydantic import Field

from phototag.base.params import NonNegativeFloat, NonNegativeInt, ParamGroup


class EvaluateParams(ParamGroup):
    """The group `evaluate`: choice of thresholds, calibration and confidence intervals."""

    prior_strength: NonNegativeFloat
    calibrate: bool
    resamples: Annotated[int, Field(ge=20)]


class EvaluationParams(ParamGroup):
    """Params that the `evaluate` stage reads.

    Attributes:
        recipe: Recipe that was applied last, or None. The report shows it.
    """

    recipe: str | None = None
    seed: NonNegativeInt
    evaluate: EvaluateParams
