"""Params that specify the dataset."""

from typing import Annotated

from pydantic import Field

from phototag.base.params import ParamGroup


class DataParams(ParamGroup):
    """The group `data`: source of the photos and label files, and labels to learn.

    Attributes:
        raw: Path of a folder of imports, or of a folder or zip with photos and label files.
        labels: Labels to learn, after the edits of labels; leave empty to learn all labels.
        license: Licence of the photos and labels, such as `cc-by-4.0`; None if it is not known. The
            model card states it.
    """

    raw: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[str, ...], Field(strict=False)]
    license: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")] | None = None
