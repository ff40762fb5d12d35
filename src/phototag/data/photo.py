"""A source file and what was decided about it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Photo:
    """One source file and what was decided about it.

    Attributes:
        decision: kept | converted | rejected.
        reason: Why, in words, each of the form `kind` or `kind: detail`, joined by semicolons;
            empty where there is nothing to tell.
        format: Pillow's name (JPEG, PNG, ...); empty when it could not be read.
        width: Of the source as stored, in pixels; 0 when it could not be read.
        height: Of the source as stored, in pixels; 0 when it could not be read.
        mode: Pillow's mode of the source (RGB, L, ...); empty when it could not be read.
        sha256: Of the source file's bytes; empty when it could not be read.
        phash: Of `intake.duplicates.perceptual_hash`; empty for a rejected or a flat photo.
        pixels: uint8 [size, size, 3], or None when rejected.
    """

    decision: str
    reason: str
    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    phash: str = ""
    pixels: np.ndarray | None = None
