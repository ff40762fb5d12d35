"""Params of the `resize` stage."""

from typing import Annotated, Literal

from pydantic import Field

from phototag.base.parallel import Backend
from phototag.base.params import ParamGroup, PositiveInt, Share
from phototag.dataset.params import DataParams


class ResizeParams(ParamGroup):
    """The group `resize`: size of the packed photos, limits, and duplicates.

    Attributes:
        size: Side of the packed photos in pixels.
        min_side: Minimum of a photo's shorter side in pixels; smaller photos are rejected.
        max_pixels: Maximum number of a photo's pixels; larger photos are rejected.
        on_problem: reject (reject up to `max_rejected`) | fail (stop at any rejection).
        max_rejected: Maximum share of rejected photos, and of rejected label lines, 0..1.
        duplicate_bits: Maximum number of differing bits in the hashes of near duplicates.
        backend: joblib backend that decodes the photos.
    """

    size: PositiveInt
    min_side: PositiveInt
    # Pillow refuses to open larger files, regardless of this limit.
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)]
    on_problem: Literal["reject", "fail"]
    max_rejected: Share
    duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    backend: Backend


class VerificationParams(ParamGroup):
    """Params that the `resize` stage reads."""

    data: DataParams
    resize: ResizeParams
