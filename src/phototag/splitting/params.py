"""Params of the `split` stage."""

from typing import Annotated

from pydantic import Field, model_validator

from phototag.base.params import Float, NonNegativeInt, ParamGroup


class SplitParams(ParamGroup):
    """The group `split`: sizes of the splits val and test; train gets the other photos.

    Attributes:
        val: Share of the photos that val gets, 0..1.
        test: Share of the photos that test gets, 0..1.
    """

    val: Annotated[Float, Field(gt=0, lt=1)]
    test: Annotated[Float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _check_train(self) -> "SplitParams":
        if self.val + self.test >= 1:
            raise ValueError(
                f"val and test sum to {self.val + self.test:g} and leave no photos for train: "
                "lower one of them"
            )
        return self


class SplittingParams(ParamGroup):
    """Params that the `split` stage reads."""

    seed: NonNegativeInt
    split: SplitParams
