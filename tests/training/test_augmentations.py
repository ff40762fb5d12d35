from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from phototag.training.augmentations import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    augment_batch,
    draw_augmentations,
    enlarge,
    mix_batches,
    remove_colours,
    rotate,
)
from phototag.training.params import AugmentParams

OFF = dict.fromkeys(AugmentParams.model_fields, 0.0)
SWITCHES = {
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "crop": 0.1,
    "zoom": 0.4,
    "rotate": 20.0,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "grayscale": 0.5,
}


def params(**switches: float) -> AugmentParams:
    return AugmentParams.model_validate(OFF | switches)


@pytest.fixture
def images() -> Tensor:
    """8 images of uint8 noise, channels last."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (8, 24, 24, 3), generator=generator, dtype=torch.uint8)
    noise[0] = 77  # gray: no hue
    noise[1] = 0
    return noise.permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (adjust_brightness, tv.adjust_brightness, (0.0, 1.8)),
        (adjust_contrast, tv.adjust_contrast, (0.0, 1.8)),
        (adjust_saturation, tv.adjust_saturation, (0.0, 1.8)),
        (adjust_hue, tv.adjust_hue, (-0.5, 0.5)),
        (
            rotate,
            lambda image, angle: tv.rotate(image, angle, InterpolationMode.BILINEAR),
            (-180.0, 180.0),
        ),
    ],
)
def test_augmentation_matches_torchvision_for_the_same_values(
    images: Tensor,
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Tensor, float], Tensor],
    values: tuple[float, float],
) -> None:
    drawn = torch.linspace(*values, len(images))
    changed = ours(images.float(), drawn)
    for image, value, result in zip(images, drawn, changed, strict=True):
        expected = theirs(image.float() / 255, float(value)) * 255
        torch.testing.assert_close(result, expected, rtol=0, atol=0.02)


def test_grayscale_matches_torchvision(images: Tensor) -> None:
    chosen = torch.arange(len(images)) % 2 == 0
    changed = remove_colours(images.float(), chosen)
    for image, gray, result in zip(images, chosen, changed, strict=True):
        expected = tv.rgb_to_grayscale(image.float(), 3) if gray else image.float()
        torch.testing.assert_close(result, expected, rtol=0, atol=0.05)


def test_flips_and_crops_match_torchvision(images: Tensor) -> None:
    count, pad = len(images), 5
    number = torch.arange(count)
    mirror_x, mirror_y = number % 2 == 0, number % 3 == 0
    shift_x, shift_y = number % 11 - pad, 3 * number % 11 - pad
    moved = augment_batch(
        images,
        {"mirror_x": mirror_x, "mirror_y": mirror_y, "shift_x": shift_x, "shift_y": shift_y},
    )
    assert moved.dtype == torch.uint8
    assert moved.is_contiguous(memory_format=torch.channels_last)
    for index, image in enumerate(images):
        padded = tv.pad(image, [pad] * 4, padding_mode="reflect")
        top, left = pad + int(shift_y[index]), pad + int(shift_x[index])
        expected = tv.crop(padded, top, left, 24, 24)
        if mirror_x[index]:
            expected = tv.horizontal_flip(expected)
        if mirror_y[index]:
            expected = tv.vertical_flip(expected)
        assert torch.equal(moved[index], expected)


def test_enlarge_matches_torchvision_inside_the_window(images: Tensor) -> None:
    number = torch.arange(len(images))
    side, left, top = 12 + number % 5, number % 7, 3 * number % 6
    window, free = side / 24, 24 - side
    changed = enlarge(images.float(), window, left / free, top / free)
    for index, image in enumerate(images):
        corner = int(top[index]), int(left[index]), int(side[index]), int(side[index])
        expected = tv.resized_crop(image.float(), *corner, [24, 24], antialias=False)
        # At the border, torchvision repeats the crop's edge instead of using the pixels outside.
        inside = slice(2, -2), slice(2, -2)
        torch.testing.assert_close(
            changed[index][:, *inside], expected[:, *inside], rtol=0, atol=0.02
        )


def test_mixup_blends_photos_and_targets(images: Tensor) -> None:
    targets = torch.eye(8)
    draws = draw_augmentations(params(mixup=0.4), 8, 24, torch.Generator())
    assert 0 <= float(draws["mix"].min()) < float(draws["mix"].max()) <= 0.4
    mixed, labels = mix_batches((images, targets), (images.flip(0), targets.flip(0)), draws["mix"])
    for index, share in enumerate(draws["mix"].tolist()):
        expected = (1 - share) * images[index].float() + share * images[7 - index].float()
        torch.testing.assert_close(mixed[index], expected)
        assert float(labels[index, index]) == pytest.approx(1 - share)
        assert float(labels[index, 7 - index]) == pytest.approx(share)


@pytest.mark.parametrize("name", SWITCHES)
def test_each_augmentation_changes_every_image_differently(images: Tensor, name: str) -> None:
    same = images[2:3].expand(64, -1, -1, -1)
    draws = draw_augmentations(params(**{name: SWITCHES[name]}), 64, 24, torch.Generator())
    changed = augment_batch(same, draws).float()
    distinct = len(torch.unique(changed.flatten(1), dim=0))
    assert (
        distinct == 2
        if name in ("flip_horizontal", "flip_vertical", "grayscale")
        else distinct > 20
    )
    assert changed.min() >= 0
    assert changed.max() <= 255.01


def test_disabled_augmentations_return_the_images(images: Tensor) -> None:
    draws = draw_augmentations(params(), len(images), 24, torch.Generator())
    assert draws == {}
    assert augment_batch(images, draws) is images


def test_values_stay_in_their_ranges() -> None:
    draws = draw_augmentations(params(**SWITCHES), 5000, 100, torch.Generator())
    assert (int(draws["shift_x"].min()), int(draws["shift_x"].max())) == (-10, 10)
    assert 19 < float(draws["angle"].abs().max()) <= 20
    assert 0.6 <= float(draws["brightness"].min()) < 0.62
    assert 1.38 < float(draws["brightness"].max()) <= 1.4
    assert 0.6 <= float(draws["window"].min()) < 0.61
    assert 0.99 < float(draws["window"].max()) <= 1
    assert 0.45 < float(draws["mirror_x"].float().mean()) < 0.55
