"""Params that name the dataset."""

from typing import Annotated

from pydantic import Field

from phototag.base.params import ParamGroup


class DataParams(ParamGroup):
    """The group `data`: the photos' folder or zip, and the labels to learn (default: all)."""

    raw: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(strict=False)]
