"""Augmentations: tensor code over a whole batch, with a draw of its own for every image.

`draw_augmentation` draws on the host from a seeded generator, so that no device changes what is
drawn; `augment_batch` works where the images are. Each formula is torchvision's for one image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from phototag.training.params import AugmentParams

LUMA = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale (ITU-R BT.601)


@dataclass(frozen=True)
class Draws:
    """What was drawn for each image of a batch, [batch] each; None for what is switched off.

    Attributes:
        mirror_x: Whether to flip left and right, bool.
        mirror_y: Whether to flip top and bottom, bool.
        shift_x: Columns by which the crop lies to the right, int64.
        shift_y: Rows by which the crop lies lower, int64.
        angle: Counter-clockwise, degrees, float32.
        brightness: Factor, float32.
        contrast: Factor, float32.
        saturation: Factor, float32.
        hue: Turn of the colour circle, -0.5..0.5, float32.
        gray: Whether to drop the colours, bool.
        window: Side of the part that is enlarged to the whole, as a share, float32.
        window_x: Where that part lies, 0 (left) .. 1 (right), float32.
        window_y: The same, 0 (top) .. 1 (bottom), float32.
        mix: Share of another photo that is blended in, 0..0.5, float32.
    """

    mirror_x: Tensor | None = None
    mirror_y: Tensor | None = None
    shift_x: Tensor | None = None
    shift_y: Tensor | None = None
    angle: Tensor | None = None
    brightness: Tensor | None = None
    contrast: Tensor | None = None
    saturation: Tensor | None = None
    hue: Tensor | None = None
    gray: Tensor | None = None
    window: Tensor | None = None
    window_x: Tensor | None = None
    window_y: Tensor | None = None
    mix: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> "Draws":
        """Return the same with every tensor changed: moved, or cut to some of the images."""
        return Draws(**{name: v if v is None else change(v) for name, v in vars(self).items()})


def draw_augmentation(
    params: AugmentParams, count: int, size: int, generator: torch.Generator
) -> Draws:
    """Draw for a batch of `count` images of `size` pixels a side."""

    def chance(probability: float) -> Tensor | None:
        if not probability:
            return None
        return torch.rand(count, generator=generator) < probability

    def uniform(low: float, high: float) -> Tensor | None:
        if low == high:
            return None
        return torch.rand(count, generator=generator) * (high - low) + low

    def factor(strength: float) -> Tensor | None:
        return uniform(max(0.0, 1 - strength), 1 + strength)

    def shift() -> Tensor | None:
        pixels = round(params.crop * size)
        if not pixels:
            return None
        return torch.randint(-pixels, pixels + 1, (count,), generator=generator)

    return Draws(
        mirror_x=chance(params.flip_horizontal),
        mirror_y=chance(params.flip_vertical),
        shift_x=shift(),
        shift_y=shift(),
        angle=uniform(-params.rotate, params.rotate),
        brightness=factor(params.brightness),
        contrast=factor(params.contrast),
        saturation=factor(params.saturation),
        hue=uniform(-params.hue, params.hue),
        gray=chance(params.grayscale),
        window=uniform(1 - params.zoom, 1),
        window_x=uniform(0, 1) if params.zoom else None,
        window_y=uniform(0, 1) if params.zoom else None,
        mix=uniform(0, params.mixup),
    )


def augment_batch(images: Tensor, draws: Draws) -> Tensor:
    """Change every image as drawn.

    Args:
        images: uint8 [batch, 3, size, size].
        draws: Of `draw_augmentation`, for as many images.

    Returns:
        The same shape: uint8 where pixels only moved, else float32, 0..255.
    """
    if not len(images):  # a process's share of a batch of fewer photos than processes
        return images
    draws = draws.each(lambda drawn: drawn.to(images.device, non_blocking=True))
    images = _move_pixels(images, draws.mirror_x, draws.mirror_y, draws.shift_x, draws.shift_y)
    if draws.window is not None and draws.window_x is not None and draws.window_y is not None:
        images = enlarge(images.float(), draws.window, draws.window_x, draws.window_y)
    if draws.angle is not None:
        images = rotate(images.float(), draws.angle)
    for change, drawn in (
        (adjust_brightness, draws.brightness),
        (adjust_contrast, draws.contrast),
        (adjust_saturation, draws.saturation),
        (adjust_hue, draws.hue),
        (drop_colours, draws.gray),
    ):
        if drawn is not None:
            images = change(images.float(), drawn)
    return images


def mix_batches(
    batch: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], mix: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend photos with others, and their targets alike (mixup; Zhang et al., 2018).

    The paper draws the share from a beta distribution; here it is uniform.

    Args:
        batch: Images, uint8 [batch, 3, size, size], and targets, float [batch, num_labels].
        other: As many.
        mix: The others' share, 0..0.5, float [batch].

    Returns:
        Images, float32, and targets, float32.
    """
    mix = mix.to(batch[1].device, non_blocking=True)
    images = torch.lerp(batch[0].float(), other[0].float(), _each(mix))
    return images, torch.lerp(batch[1], other[1], mix[:, None])


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Turn about the centre, bilinear; what comes in from outside is black.

    Args:
        images: float [batch, 3, size, size].
        angle: Counter-clockwise, degrees, float [batch].
    """
    radians = angle * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1)
    # The output's pixel looks back where it came from, y pointing down.
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)


def enlarge(images: Tensor, window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cut a square window out of each image and enlarge it to the whole, bilinear.

    Args:
        images: float [batch, 3, size, size].
        window: Side of the window, as a share of the image's, above 0 to 1, float [batch].
        x: Where the window lies, from 0 (at the left border) to 1 (at the right), float [batch].
        y: The same from top to bottom, float [batch].
    """
    zero = torch.zeros_like(window)
    left, top = (1 - window) * (2 * x - 1), (1 - window) * (2 * y - 1)
    rows = torch.stack([window, zero, left, zero, window, top], dim=1)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, "bilinear", "border", align_corners=False)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply all channels; float [batch, 3, ...], 0..255."""
    return (images * _each(factor)).clamp(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean luminance; float [batch, 3, ...], 0..255."""
    mean = _luminance(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _each(factor)).clamp(0, 255)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in gray; float [batch, 3, ...], 0..255."""
    return torch.lerp(_luminance(images), images, _each(factor)).clamp(0, 255)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the colours about the gray axis of HSV.

    Args:
        images: float [batch, 3, size, size], 0..255.
        turn: Of the circle, -0.5..0.5, float [batch].
    """
    value, _ = images.max(dim=1)
    chroma = value - images.min(dim=1).values
    safe = chroma.clamp(min=1e-12)
    red, green, blue = ((value - channel) / safe for channel in images.unbind(dim=1))
    is_red, is_green = value == images[:, 0], value == images[:, 1]
    hue = torch.where(is_red, blue - green, torch.where(is_green, 2 + red - blue, 4 + green - red))
    hue = torch.where(chroma > 0, hue, 0.0) / 6 + turn.view(-1, 1, 1)
    # Each channel is `value` over a third of the circle, `value - chroma` over another, and
    # changes linearly between (the formula of Smith 1978, without its six cases).
    shifted = torch.stack([(hue * 6 + offset) % 6 for offset in (5.0, 3.0, 1.0)], dim=1)
    share = torch.minimum(shifted, 4 - shifted).clamp(0, 1)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * share


def drop_colours(images: Tensor, gray: Tensor) -> Tensor:
    """Replace the channels of the chosen images by their luminance; `gray` is bool [batch]."""
    return torch.where(_each(gray), _luminance(images), images)


def _move_pixels(
    images: Tensor,
    mirror_x: Tensor | None,
    mirror_y: Tensor | None,
    shift_x: Tensor | None,
    shift_y: Tensor | None,
) -> Tensor:
    """Crop and flip in one gather of whole pixels; borders are mirrored."""
    size = images.shape[-1]
    if mirror_x is mirror_y is shift_x is shift_y is None:
        return images
    columns = _place(size, mirror_x, shift_x, images)
    rows = _place(size, mirror_y, shift_y, images)
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    # Channels last: the gather copies three neighbouring bytes a pixel.
    moved = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _place(size: int, mirror: Tensor | None, shift: Tensor | None, images: Tensor) -> Tensor:
    """Return which row (or column) each output row comes from, int64 [batch, size]."""
    place = torch.arange(size, device=images.device).expand(len(images), size)
    if mirror is not None:
        place = torch.where(mirror[:, None], size - 1 - place, place)
    if shift is not None:
        place = (place + shift[:, None]).abs()
        place = size - 1 - (size - 1 - place).abs()
    return place


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _luminance(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
