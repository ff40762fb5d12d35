"""Params of the `resize` stage."""

from typing import Annotated, Literal

from pydantic import Field

from phototag.base.parallel import Backend
from phototag.base.params import ParamGroup, PositiveInt, Share, SizeParams
from phototag.dataset.params import DataParams


class ResizeParams(SizeParams, extra="forbid"):
    """The group `resize`: size of the packed photos, limits on photos, and near duplicates.

    Attributes:
        size: Side of the photos that the network processes, in pixels. If the shorter sides
            of all photos are smaller, the photos are packed at the largest of these sides, and the
            network enlarges them.
        min_side: Minimum length of a photo's shorter side in pixels; smaller photos are rejected.
        max_pixels: Maximum number of pixels of a photo; larger photos are rejected.
        on_problem: reject (continue up to `max_rejected`) | fail (stop if anything is rejected).
        max_rejected: Maximum share of the photos or of the label lines that may be rejected, 0..1.
        duplicate_bits: Maximum number of bits in which the hashes of near duplicates differ.
        backend: joblib backend that runs the decoding of photos.
    """

    min_side: PositiveInt
    # Pillow refuses to open photos with more pixels than this maximum.
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)]
    on_problem: Literal["reject", "fail"]
    max_rejected: Share
    duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    backend: Backend


class VerificationParams(ParamGroup):
    """Params that the `resize` stage reads."""

    data: DataParams
    resize: ResizeParams
