"""Params that name the dataset."""

from typing import Annotated

from pydantic import Field

from phototag.base.params import ParamGroup


class DataParams(ParamGroup):
    """The group `data`: source of the photos, and the labels to learn.

    Attributes:
        raw: Path of the folder or zip with photos and label files.
        labels: Labels to learn; empty for those of all label files.
    """

    raw: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(strict=False)]
