"""Draw synthetic scenes from a background, objects, lighting and noise.

Colours, lighting, backgrounds and clutter have nearly the same distribution for all labels, so that
mean pixel values reveal little about the labels, which differ by shape.
"""

from collections.abc import Callable, Set

import numpy as np
from PIL import Image, ImageFilter

from phototag.synthetic import objects
from phototag.synthetic.backgrounds import paint_background
from phototag.synthetic.canvas import Canvas
from phototag.synthetic.people import draw_figures, draw_portrait

SCALE = 2  # factor by which scenes are drawn larger and then reduced, to smooth edges

# Objects are painted in this order, from back to front.
PAINTERS: dict[str, Callable[[Canvas, float], None]] = {
    "clouds": objects.draw_clouds,
    "tree": objects.draw_tree,
    "car": objects.draw_car,
    "dog": objects.draw_dog,
    "bird": objects.draw_bird,
    "flower": objects.draw_flower,
}


def draw_scene(labels: Set[str], rng: np.random.Generator, size: int) -> Image.Image:
    """Return an RGB image of `size` x `size` pixels that shows exactly the given labels.

    The labels must be a subset of `dataset.LABELS`. All other choices are random.
    """
    canvas = Canvas(size * SCALE, rng)
    ground = paint_background(canvas, labels)
    dark = "night" in labels or (not labels and canvas.chance(0.06))
    for _ in range(int(rng.integers(0, 2) if labels else rng.integers(1, 4))):
        objects.draw_clutter(canvas, ground)
    for label, paint in PAINTERS.items():
        if label in labels:
            paint(canvas, ground)
    if "people" in labels:
        kinds = sorted(labels & {"female", "male", "baby"}) or ["unclear"]
        if "portrait" in labels:
            draw_portrait(canvas, ["baby"] if "baby" in kinds else kinds)
            if "baby" in kinds and len(kinds) > 1:
                draw_figures(canvas, kinds[1:], 0.7)
        else:
            draw_figures(canvas, kinds * (2 if canvas.chance(0.3) else 1), ground)
    if dark:
        objects.draw_night(canvas, lamps="night" in labels)
    return develop(canvas, size)


def develop(canvas: Canvas, size: int) -> Image.Image:
    """Reduce the scene to `size` pixels and vary its lighting, contrast, blur and noise."""
    image = canvas.image.reduce(SCALE)
    if canvas.chance(0.5):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if canvas.chance(0.3):
        image = image.filter(ImageFilter.GaussianBlur(canvas.uniform(0.3, 1.0)))
    pixels = np.asarray(image, np.float32)
    light = canvas.rng.uniform(0.75, 1.2) * canvas.rng.uniform(0.93, 1.07, 3)
    middle = pixels.mean()
    pixels = middle + (pixels - middle) * canvas.uniform(0.8, 1.15)
    grain = canvas.rng.normal(0, canvas.uniform(2, 8), (size, size, 3))
    return Image.fromarray((pixels * light + grain).clip(0, 255).astype(np.uint8))
