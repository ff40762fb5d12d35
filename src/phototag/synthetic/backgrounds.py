"""Backgrounds of a scene: outdoors, indoors, a studio, the sea or a river.

Each `paint_*` function that paints a whole background returns the height of the ground on which
objects are placed, as a fraction of the image's side, measured from the top.
"""

import math
from collections.abc import Set

import numpy as np
from PIL import ImageFilter

from phototag.synthetic.canvas import GREENS, SKIES, Canvas, shade


def paint_background(canvas: Canvas, labels: Set[str]) -> float:
    """Paint the background that the labels require, or else a random background."""
    if "sea" in labels:
        return paint_sea(canvas)
    if "river" in labels:
        return paint_river(canvas)
    if labels & {"clouds", "tree", "car", "night"}:
        return paint_outdoors(canvas)
    places = (paint_outdoors, paint_indoors, paint_studio)
    return places[int(canvas.rng.choice(3, p=(0.45, 0.3, 0.25)))](canvas)


def paint_outdoors(canvas: Canvas) -> float:
    """Paint the sky and the ground, and maybe mountains, hills or houses; return the horizon."""
    horizon = canvas.uniform(0.38, 0.72)
    sky = canvas.pick(*SKIES)
    canvas.gradient(shade(sky, canvas.uniform(0.7, 1.0)), shade(sky, 1.15), 0, horizon)
    ground = canvas.pick(*GREENS, (150, 140, 126), (196, 176, 134), (110, 106, 104))
    canvas.gradient(shade(ground, 1.1), shade(ground, canvas.uniform(0.6, 0.9)), horizon, 1)
    match int(canvas.rng.integers(4)):
        case 0:
            paint_ridge(canvas, horizon, canvas.uniform(0.08, 0.3), jagged=True)
        case 1:
            paint_ridge(canvas, horizon, canvas.uniform(0.03, 0.12), jagged=False)
        case 2:
            paint_houses(canvas, horizon)
    return horizon


def paint_ridge(canvas: Canvas, horizon: float, height: float, jagged: bool) -> None:
    """Paint mountains (if `jagged`) or hills on the horizon."""
    xs = np.linspace(-0.05, 1.05, 8 if jagged else 30)
    wave = np.abs(np.sin(xs * canvas.uniform(2, 6) + canvas.uniform(0, 6)))
    rough = canvas.rng.uniform(0.3, 1, len(xs)) if jagged else np.ones(len(xs))
    points = [
        (float(x), horizon - height * float(h)) for x, h in zip(xs, wave * rough, strict=True)
    ]
    colour = canvas.pick((104, 110, 128), (86, 96, 84), (140, 120, 104))
    canvas.polygon([*points, (1.05, horizon), (-0.05, horizon)], colour)


def paint_houses(canvas: Canvas, horizon: float) -> None:
    """Paint a row of buildings with windows on the horizon."""
    x = canvas.uniform(-0.1, 0.2)
    while x < 1:
        width, height = canvas.uniform(0.12, 0.32), canvas.uniform(0.12, min(0.5, horizon))
        wall = canvas.colour(70, 210)
        canvas.box((x, horizon - height, x + width, horizon + 0.01), wall)
        for wx in np.arange(x + 0.02, x + width - 0.03, 0.055):
            for wy in np.arange(horizon - height + 0.03, horizon - 0.05, 0.07):
                canvas.box((wx, wy, wx + 0.03, wy + 0.04), shade(wall, 0.55))
        x += width + canvas.uniform(0, 0.2)


def paint_indoors(canvas: Canvas) -> float:
    """Paint a wall with picture frames and a floor; return the upper edge of the floor."""
    floor = canvas.uniform(0.62, 0.9)
    wall = canvas.pick(
        (206, 192, 172), (150, 160, 168), (170, 120, 100), (110, 120, 110), (92, 80, 84)
    )
    canvas.gradient(shade(wall, 1.1), shade(wall, canvas.uniform(0.6, 0.95)), 0, floor)
    canvas.gradient(canvas.colour(60, 180), canvas.colour(40, 140), floor, 1)
    for _ in range(int(canvas.rng.integers(0, 4))):
        x, y = canvas.uniform(0, 0.85), canvas.uniform(0.02, floor - 0.25)
        width, height = canvas.uniform(0.1, 0.3), canvas.uniform(0.1, 0.3)
        canvas.box((x, y, x + width, y + height), canvas.colour())
        canvas.box((x + 0.02, y + 0.02, x + width - 0.02, y + height - 0.02), canvas.colour())
    return floor


def paint_studio(canvas: Canvas) -> float:
    """Paint a blurred backdrop; return the height of the ground."""
    canvas.gradient(canvas.colour(), canvas.colour(), 0, 1)
    for _ in range(int(canvas.rng.integers(0, 9))):
        radius = canvas.uniform(0.05, 0.3)
        canvas.ellipse(canvas.uniform(0, 1), canvas.uniform(0, 1), radius, radius, canvas.colour())
    blurred = canvas.image.filter(ImageFilter.GaussianBlur(canvas.side * 0.04))
    canvas.image.paste(blurred)
    return canvas.uniform(0.75, 0.95)


def paint_sea(canvas: Canvas) -> float:
    """Paint the sky, water with waves and maybe a beach; return the height of the beach."""
    horizon = canvas.uniform(0.3, 0.55)
    sky = canvas.pick(*SKIES)
    canvas.gradient(shade(sky, 0.85), shade(sky, 1.15), 0, horizon)
    shore = canvas.uniform(0.7, 1.02)
    water = canvas.pick((46, 96, 140), (70, 130, 140), (120, 134, 146), (150, 120, 110))
    canvas.gradient(shade(water, 1.15), shade(water, 0.8), horizon, shore)
    for depth in np.linspace(0.05, 1, int(canvas.rng.integers(7, 14))):
        y = horizon + (shore - horizon) * float(depth) ** 1.5
        x = canvas.uniform(-0.3, 0.3)
        while x < 1:
            length = canvas.uniform(0.1, 0.4)
            points = [(x + length * t, y + 0.008 * math.sin(9 * t)) for t in np.linspace(0, 1, 7)]
            canvas.line(
                points, shade(water, canvas.uniform(1.2, 1.7)), 0.004 + 0.012 * float(depth)
            )
            x += length + canvas.uniform(0.03, 0.3)
    sand = canvas.pick((214, 194, 150), (180, 160, 128), (120, 112, 104))
    canvas.gradient(sand, shade(sand, 0.8), shore, 1)
    return min(shore + 0.1, 0.95)


def paint_river(canvas: Canvas) -> float:
    """Paint a landscape with a winding river; return the height of the near bank."""
    horizon = paint_outdoors(canvas)
    water = canvas.pick((70, 120, 160), (110, 140, 160), (90, 110, 90), (150, 150, 150))
    start, bend = canvas.uniform(0.25, 0.75), canvas.uniform(0.12, 0.3) * canvas.rng.choice([-1, 1])
    end, phase = canvas.uniform(0.25, 0.75), canvas.uniform(1.2, 2.2)
    depths = np.linspace(0, 1, 25)
    middle = start + (end - start) * depths + bend * np.sin(depths * math.pi * phase)
    half = 0.015 + canvas.uniform(0.1, 0.2) * depths**1.4
    heights = horizon + (1.02 - horizon) * depths
    left = [(float(m - h), float(y)) for m, h, y in zip(middle, half, heights, strict=True)]
    right = [(float(m + h), float(y)) for m, h, y in zip(middle, half, heights, strict=True)]
    canvas.line(left, shade(water, 0.6), 0.02)
    canvas.line(right, shade(water, 0.6), 0.02)
    canvas.polygon(left + right[::-1], water)
    for m, h, y in list(zip(middle, half, heights, strict=True))[4::3]:
        x = float(m + canvas.uniform(-0.5, 0.3) * h)
        canvas.line([(x, float(y)), (x + float(h) * 0.5, float(y))], shade(water, 1.35), 0.006)
    return 0.9
