"""Params of the `resize` stage."""

from typing import Annotated, Literal

from pydantic import Field

from phototag.base.parallel import Backend
from phototag.base.params import ParamGroup, PositiveInt, Share
from phototag.dataset.params import DataParams


class ResizeParams(ParamGroup):
    """The group `resize`: size of the packed photos, and what is rejected."""

    size: PositiveInt
    min_side: PositiveInt
    # Pillow refuses to open larger files, whatever limit is set here.
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)]
    on_problem: Literal["reject", "fail"]
    max_rejected: Share
    duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    backend: Backend


class VerificationParams(ParamGroup):
    """Params that the `resize` stage reads."""

    data: DataParams
    resize: ResizeParams
