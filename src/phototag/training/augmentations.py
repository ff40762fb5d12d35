"""Augmentations: tensor operations on a whole batch, with different random values for each image.

To add an augmentation, declare its strength in `AugmentParams`, draw its values in
`draw_augmentations`, and apply it in `augment_batch`. Values are always drawn on the CPU from a
seeded generator. They are therefore equal on all devices. The formulas are those of torchvision.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from phototag.training.params import AugmentParams

LUMA = (0.2989, 0.587, 0.114)  # channel weights of torchvision's rgb_to_grayscale (ITU-R BT.601)


def draw_augmentations(
    params: AugmentParams, count: int, size: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the random values for a batch of `count` images of `size` x `size` pixels.

    Returns:
        Dictionary of tensors, [count] (one value per image), without disabled augmentations:

        - `mirror_x`, `mirror_y`: Whether to flip the image horizontally or vertically; bool.
        - `shift_x`, `shift_y`: Offset of the crop to the right or downwards, in pixels; int64.
        - `angle`: Counter-clockwise rotation in degrees; float32.
        - `brightness`, `contrast`, `saturation`: Factor; 1 changes nothing; float32.
        - `hue`: Rotation of the hue as a share of the colour circle, -0.5..0.5; float32.
        - `gray`: Whether to remove the colours; bool.
        - `window`: Side length of the window to enlarge, divided by that of the image; float32.
        - `window_x`, `window_y`: Position of the window, 0 (left or top) to 1; float32.
        - `mix`: Share of another image to blend in, 0..0.5; float32.
    """

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

    def shift(pixels: int) -> Tensor | None:
        if not pixels:
            return None
        return torch.randint(-pixels, pixels + 1, (count,), generator=generator)

    draws = {
        "mirror_x": chance(params.flip_horizontal),
        "mirror_y": chance(params.flip_vertical),
        "shift_x": shift(round(params.crop * size)),
        "shift_y": shift(round(params.crop * size)),
        "angle": uniform(-params.rotate, params.rotate),
        "brightness": factor(params.brightness),
        "contrast": factor(params.contrast),
        "saturation": factor(params.saturation),
        "hue": uniform(-params.hue, params.hue),
        "gray": chance(params.grayscale),
        "window": uniform(1 - params.zoom, 1),
        "window_x": uniform(0, 1) if params.zoom else None,
        "window_y": uniform(0, 1) if params.zoom else None,
        "mix": uniform(0, params.mixup),
    }
    return {name: values for name, values in draws.items() if values is not None}


def augment_batch(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Apply drawn augmentations, except `mix`, to uint8 or float32 [batch, 3, size, size].

    Flips and crops only move pixels: the result then has the dtype of `images`. With any other
    augmentation, the result is float32, 0..255.
    """
    if not len(images):  # the last batch can have fewer photos than there are processes
        return images
    draws = {name: v.to(images.device, non_blocking=True) for name, v in draws.items()}
    images = _move_pixels(images, draws)
    if "window" in draws:
        images = enlarge(images.float(), draws["window"], draws["window_x"], draws["window_y"])
    for name, change in (
        ("angle", rotate),
        ("brightness", adjust_brightness),
        ("contrast", adjust_contrast),
        ("saturation", adjust_saturation),
        ("hue", adjust_hue),
        ("gray", remove_colours),
    ):
        if name in draws:
            images = change(images.float(), draws[name])
    return images


def mix_batches(
    batch: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], mix: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend images and their targets with other images and targets (mixup; Zhang et al., 2018).

    The paper draws the share of the other image from a beta distribution. Here it is drawn from a
    uniform distribution: `mix`, 0..0.5, float32 [batch]. Both batches consist of images, uint8
    [batch, 3, size, size], and targets, float32 [batch, num_labels].
    """
    mix = mix.to(batch[1].device, non_blocking=True)
    images = torch.lerp(batch[0].float(), other[0].float(), _each(mix))
    return images, torch.lerp(batch[1], other[1], mix[:, None])


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate images counter-clockwise about the centre, by angles in degrees, [batch]."""
    radians = angle * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    return _transform(images, [cos, -sin, zero, sin, cos, zero], "zeros")


def enlarge(images: Tensor, window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Enlarge a square window of each image to the size of the image, [batch, 3, size, size].

    `window` is the side length of the window divided by that of the image, above 0 and at most 1.
    `x` and `y` give its position, 0 (left or top) to 1 (right or bottom). All are float32 [batch].
    """
    zero = torch.zeros_like(window)
    left, top = (1 - window) * (2 * x - 1), (1 - window) * (2 * y - 1)
    return _transform(images, [window, zero, left, zero, window, top], "border")


def _transform(images: Tensor, entries: list[Tensor], padding: str) -> Tensor:
    """Resample images bilinearly; `entries` of 2 x 3 matrices map output to input coordinates."""
    matrices = torch.stack(entries, dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, "bilinear", padding, align_corners=False)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply each image, float32 [batch, 3, ...], 0..255, by a factor."""
    return (images * _each(factor)).clamp(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image, float32 [batch, 3, ...], 0..255, with its mean luminance."""
    mean = _luminance(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _each(factor)).clamp(0, 255)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image, float32 [batch, 3, ...], 0..255, with its grayscale version."""
    return torch.lerp(_luminance(images), images, _each(factor)).clamp(0, 255)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue in HSV space; `turn` is a share of the colour circle, -0.5..0.5, [batch]."""
    value, _ = images.max(dim=1)
    chroma = value - images.min(dim=1).values
    safe = chroma.clamp(min=1e-12)
    red, green, blue = ((value - channel) / safe for channel in images.unbind(dim=1))
    is_red, is_green = value == images[:, 0], value == images[:, 1]
    hue = torch.where(is_red, blue - green, torch.where(is_green, 2 + red - blue, 4 + green - red))
    hue = torch.where(chroma > 0, hue, 0.0) / 6 + turn.view(-1, 1, 1)
    # Convert back to RGB (Smith, 1978, without the six cases): each channel equals `value` on one
    # third of the colour circle, `value - chroma` on another third, and is linear between them.
    shifted = torch.stack([(hue * 6 + offset) % 6 for offset in (5.0, 3.0, 1.0)], dim=1)
    share = torch.minimum(shifted, 4 - shifted).clamp(0, 1)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * share


def remove_colours(images: Tensor, gray: Tensor) -> Tensor:
    """Convert the images selected by `gray`, bool [batch], to grayscale."""
    return torch.where(_each(gray), _luminance(images), images)


def _move_pixels(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Crop and flip images without interpolation; mirrored pixels fill the border of a crop."""
    if not draws.keys() & {"mirror_x", "mirror_y", "shift_x", "shift_y"}:
        return images
    columns = _source_indices(images, draws.get("mirror_x"), draws.get("shift_x"))
    rows = _source_indices(images, draws.get("mirror_y"), draws.get("shift_y"))
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    # In channels_last layout, the three values of a pixel are adjacent, which is faster to copy.
    moved = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _source_indices(images: Tensor, mirror: Tensor | None, shift: Tensor | None) -> Tensor:
    """Return the input index of each output row or column, int64 [batch, size]."""
    size = images.shape[-1]
    indices = torch.arange(size, device=images.device).expand(len(images), size)
    if mirror is not None:
        indices = torch.where(mirror[:, None], size - 1 - indices, indices)
    if shift is not None:
        indices = (indices + shift[:, None]).abs()
        indices = size - 1 - (size - 1 - indices).abs()
    return indices


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _luminance(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
