"""Conversion of palettes, transparency and 16-bit samples to 8-bit grayscale, RGB or CMYK."""

import numpy as np
from PIL import Image

WHITE_IS_ZERO = 0  # TIFF 6.0: value of the tag PhotometricInterpretation
PHOTOMETRIC_INTERPRETATION = 262  # TIFF tag


def flatten(image: Image.Image, raw_mode: str) -> tuple[Image.Image, list[str]]:
    """Convert a decoded image to one of the modes L, RGB and CMYK.

    Args:
        image: A decoded image of any mode.
        raw_mode: Description of the samples as stored, from `image.tile` before decoding; Pillow
            discards it when it decodes.

    Returns:
        The converted image, and the reasons for the conversion (empty if nothing changed).

    Raises:
        ValueError: The image has 32 bits per sample, which have no common range of values.
    """
    changes = []
    is_16_bit_gray = image.mode.startswith("I;16")
    if ";16" in raw_mode or is_16_bit_gray:
        changes.append("16-bit")
    if image.has_transparency_data:
        changes.append("alpha: composited on white")
        return _composite_on_white(image, raw_mode), changes
    if image.mode == "RGB":
        return image, changes
    if is_16_bit_gray:
        return _scale_to_8_bits(image, raw_mode), [*changes, "grayscale"]
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits per sample (mode {image.mode}) are not supported")
    names = {"L": "grayscale", "1": "grayscale", "P": "palette"}
    changes.append(names.get(image.mode, image.mode))
    if image.mode in ("L", "CMYK"):
        return image, changes
    return image.convert("L" if image.mode == "1" else "RGB"), changes


def _composite_on_white(image: Image.Image, raw_mode: str) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        return _scale_to_8_bits(image, raw_mode, transparent)
    if "RGB;16" in raw_mode and isinstance(transparent, tuple):
        # Pillow keeps the upper 8 bits of each sample, but not of the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode == "L" and isinstance(transparent, int):
        # Pillow scales samples of 2 and 4 bits to 0..255, but not the transparent value.
        factor = 85 if "L;2" in raw_mode else 17 if "L;4" in raw_mode else 1
        image.info["transparency"] = transparent * factor
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _scale_to_8_bits(
    image: Image.Image, raw_mode: str, transparent: int | None = None
) -> Image.Image:
    """Keep the upper 8 of 16 (or 12) bits of a grayscale image; Pillow would clip at 255."""
    levels = np.asarray(image).astype(np.uint16)
    upper = (levels >> (4 if ";12" in raw_mode else 8)).astype(np.uint8)
    upper[levels == transparent] = 255  # all 16 bits decide which pixels are transparent
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        upper = 255 - upper
    return Image.fromarray(upper)
