"""Params of the `evaluate` stage."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from phototag.base.errors import InputError
from phototag.base.params import Float, NonNegativeFloat, NonNegativeInt, ParamGroup

DEFAULT = "default"  # key of the target of all labels that `evaluate.target` does not name
Goal = Annotated[Float, Field(gt=0, lt=1)] | None


class Target(ParamGroup):
    """Target of a threshold: the highest F1 (`f1`), or a lowest precision or recall."""

    precision: Goal = None
    recall: Goal = None

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if value == "f1":
            return {}
        goals = value if isinstance(value, dict) else {}
        if not goals or [*goals.values()].count(None) < len(goals) - 1:
            raise ValueError("expected f1, {precision: NUMBER} or {recall: NUMBER}")
        return value

    def __str__(self) -> str:
        return " ".join(f"{key} {goal:g}" for key, goal in self if goal) or "f1"


F1 = Target.model_construct()


def _name_default(value: Any) -> Any:
    """Return the targets by label. If `value` is a single target, it becomes the default."""
    if not isinstance(value, dict):
        return {DEFAULT: value}
    named = any(goal == "f1" or isinstance(goal, dict) for goal in value.values())
    single = value and not named and {*value} <= {*Target.model_fields}
    return {DEFAULT: value} if single else value


Targets = Annotated[dict[str, Target], BeforeValidator(_name_default)]


class EvaluateParams(ParamGroup):
    """The group `evaluate`: choice of thresholds, calibration and confidence intervals."""

    target: Targets = Field(default_factory=lambda: {DEFAULT: F1})
    prior_strength: NonNegativeFloat
    calibrate: bool
    resamples: Annotated[int, Field(ge=20)]

    def list_targets(self, labels: Sequence[str]) -> list[Target]:
        """Return the target of each label.

        Raises:
            InputError: `target` names a label that is not in `labels`.
        """
        for name in self.target.keys() - {*labels, DEFAULT}:
            raise InputError(
                f"evaluate.target: the dataset has no label {name!r}: `phototag label` lists the "
                "labels"
            )
        default = self.target.get(DEFAULT, F1)
        return [self.target.get(label, default) for label in labels]


class EvaluationParams(ParamGroup):
    """Params that the `evaluate` stage reads.

    Attributes:
        recipe: Recipe that was applied last, or None. The report shows it.
    """

    recipe: str | None = None
    seed: NonNegativeInt
    evaluate: EvaluateParams
