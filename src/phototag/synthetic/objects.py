"""Draw the objects of a scene, with or without labels, and darken night scenes."""

import math

import numpy as np
from PIL import Image

from phototag.synthetic.canvas import GREENS, HAIR, SKIN, Canvas, Colour, Point, shade


def draw_clouds(canvas: Canvas, ground: float) -> None:
    """Draw two to four clouds with flat bases in the upper third of the image."""
    tone = canvas.pick((250, 250, 250), (226, 226, 232), (244, 220, 206))
    for _ in range(int(canvas.rng.integers(2, 5))):
        x, y = canvas.uniform(0.05, 0.95), canvas.uniform(0.08, 0.32)
        size = canvas.uniform(0.1, 0.24)
        for lift, factor in ((0.0, 0.86), (-0.16, 1.0)):
            for place in np.linspace(-1, 1, 7):
                radius = size * (0.5 - 0.3 * abs(place)) * canvas.uniform(0.75, 1.15)
                cx, cy = x + size * float(place), y + size * lift - radius * 0.5
                canvas.ellipse(cx, cy, radius * 1.1, radius, shade(tone, factor))


def draw_tree(canvas: Canvas, ground: float) -> None:
    """Draw a broadleaf tree, a conifer or a bare tree."""
    x, foot = canvas.uniform(0.2, 0.8), min(0.97, ground + canvas.uniform(0.05, 0.25))
    height = canvas.uniform(0.5, 0.8)
    top, bark, leaf = foot - height, canvas.pick((92, 66, 44), (70, 60, 54)), canvas.pick(*GREENS)
    match int(canvas.rng.integers(3)):
        case 0:
            canvas.box((x - 0.03, foot - height * 0.5, x + 0.03, foot), bark)
            for _ in range(26):
                angle, reach = canvas.uniform(0, 2 * math.pi), math.sqrt(canvas.uniform(0, 1))
                cx = x + 0.24 * reach * math.cos(angle)
                cy = top + height * 0.35 + height * 0.27 * reach * math.sin(angle)
                radius = canvas.uniform(0.04, 0.09)
                canvas.ellipse(cx, cy, radius, radius, shade(leaf, canvas.uniform(0.65, 1.25)))
        case 1:
            canvas.box((x - 0.025, foot - 0.12, x + 0.025, foot), bark)
            for level in range(5):
                y, half = top + height * 0.17 * level, 0.06 + 0.035 * level
                points = [(x, y), (x - half, y + height * 0.24), (x + half, y + height * 0.24)]
                canvas.polygon(points, shade(leaf, 0.75 + 0.08 * level))
        case _:
            draw_branch(canvas, (x, foot), -math.pi / 2, height * 0.36, 0.05, bark)


def draw_branch(
    canvas: Canvas, foot: Point, angle: float, length: float, width: float, bark: Colour
) -> None:
    """Draw a branch without leaves and, recursively, its side branches."""
    tip = (foot[0] + length * math.cos(angle), foot[1] + length * math.sin(angle))
    canvas.line([foot, tip], bark, width)
    if length > 0.05:
        for turn in (-0.55, 0.5, 0.05):
            turned = angle + turn + canvas.uniform(-0.15, 0.15)
            draw_branch(canvas, tip, turned, length * canvas.uniform(0.6, 0.75), width * 0.6, bark)


def draw_car(canvas: Canvas, ground: float) -> None:
    """Draw the side view of a car."""
    width = canvas.uniform(0.55, 0.85)
    x, foot = canvas.uniform(0, 1 - width), min(0.95, ground + canvas.uniform(0.06, 0.25))
    high, paint, glass = width * 0.2, canvas.colour(), canvas.pick((60, 76, 92), (160, 180, 190))
    roof = width * canvas.uniform(0.15, 0.2)
    front = canvas.uniform(0.15, 0.3)
    wheel = width * 0.095
    canvas.ellipse(x + width / 2, foot, width * 0.52, 0.02, (30, 30, 32))
    top, sill = foot - high - roof - wheel * 0.6, foot - high - wheel
    cabin = [(x + width * (front - 0.08), sill), (x + width * (front + 0.06), top)]
    cabin += [(x + width * 0.76, top), (x + width * 0.9, sill)]
    canvas.polygon(cabin, paint)
    for left, right in ((front + 0.06, 0.5), (0.53, 0.76)):
        pane = (x + width * left, foot - high - roof * 0.85 - wheel * 0.6)
        canvas.box((*pane, x + width * right, foot - high - wheel * 0.7), glass, 0.01)
    canvas.box((x, sill, x + width, foot - wheel * 0.7), paint, width * 0.06)
    canvas.box((x, foot - wheel * 1.6, x + width * 0.05, foot - wheel * 1.1), (250, 240, 190))
    for place in (0.2, 0.8):
        tyre = canvas.at(x + width * place, foot - wheel * 0.7, wheel)
        tyre.ellipse(0, 0, 1, 1, (24, 24, 26))
        tyre.ellipse(0, 0, 0.5, 0.5, (170, 170, 176))


def draw_dog(canvas: Canvas, ground: float) -> None:
    """Draw the side view of a dog that faces left or right."""
    size = canvas.uniform(0.42, 0.62)
    foot = max(min(0.95, ground + canvas.uniform(0.08, 0.22)), size * 1.35)
    x = canvas.uniform(0.35, 0.65)
    way = 1 if canvas.chance(0.5) else -1
    coats = (150, 104, 62), (60, 50, 46), (214, 190, 150), (240, 236, 230), (120, 110, 104)
    coat = canvas.pick(*coats)
    back = foot - size * 0.75
    for place in (-0.42, -0.3, 0.25, 0.37):
        leg = x + way * size * place
        canvas.box((leg - size * 0.05, back, leg + size * 0.05, foot), shade(coat, 0.85), 0.01)
    body = canvas.at(x, back, size, way)
    body.ellipse(0, 0, 0.52, 0.22, coat)
    body.line([(-0.48, -0.05), (-0.75, -0.4)], coat, 0.08)
    body.line([(0.35, 0), (0.55, -0.3)], coat, 0.22)
    head = canvas.at(x + way * size * 0.55, back - size * 0.3, size, way)
    head.ellipse(0, 0, 0.2, 0.18, coat)
    head.ellipse(0.2, 0.06, 0.14, 0.09, coat)
    head.ellipse(0.32, 0.03, 0.04, 0.035, (20, 18, 18))
    head.ellipse(-0.12, 0.05, 0.08, 0.19, shade(coat, 0.65))
    head.ellipse(0.06, -0.05, 0.03, 0.03, (20, 18, 18))


def draw_bird(canvas: Canvas, ground: float) -> None:
    """Draw a bird that is perched or flying."""
    plumage, size = canvas.colour(), canvas.uniform(0.24, 0.36)
    way = 1 if canvas.chance(0.5) else -1
    x, y = canvas.uniform(0.3, 0.7), canvas.uniform(0.25, 0.6)
    beak = canvas.pick((230, 160, 40), (60, 56, 50))
    if canvas.chance(0.4):
        lift = canvas.uniform(0.3, 0.9)
        for side in (-1, 1):
            tip = (x + side * size * 1.5, y - size * lift)
            points = [(x - size * 0.25, y), (x + side * size * 0.8, y - size * lift * 0.9), tip]
            canvas.polygon([*points, (x + side * size * 0.5, y + size * 0.1)], shade(plumage, 0.75))
        canvas.ellipse(x, y, size * 0.42, size * 0.2, plumage)
    else:
        perch = y + size * 0.75
        canvas.line([(0, perch + 0.03), (1, perch - 0.03)], canvas.pick((96, 70, 48)), 0.03)
        canvas.line([(x, y), (x, perch)], beak, 0.015)
        body = canvas.at(x, y, size, way)
        body.polygon([(-0.3, -0.2), (-1.3, 0.5), (0, 0.4)], shade(plumage, 0.7))
        body.ellipse(0, 0, 0.6, 0.45, plumage)
        body.ellipse(-0.12, 0.03, 0.4, 0.22, shade(plumage, 0.75))
    head = canvas.at(x + way * size * 0.5, y - size * 0.3, size, way)
    head.ellipse(0, 0, 0.28, 0.26, shade(plumage, 1.1))
    head.polygon([(0.2, -0.1), (0.6, 0.05), (0.2, 0.14)], beak)
    head.ellipse(0.08, -0.05, 0.05, 0.05, (15, 15, 15))


def draw_flower(canvas: Canvas, ground: float) -> None:
    """Draw one large flower or three to five small flowers."""
    several = canvas.chance(0.5)
    petals = (220, 60, 80), (240, 200, 60), (190, 110, 200), (245, 240, 240), (240, 140, 60)
    petal = canvas.pick(*petals)
    heart = canvas.pick((240, 200, 60), (90, 60, 40))
    for _ in range(int(canvas.rng.integers(3, 6)) if several else 1):
        size = canvas.uniform(0.1, 0.16) if several else canvas.uniform(0.25, 0.38)
        x, y = canvas.uniform(0.2, 0.8), canvas.uniform(0.25, 0.7)
        canvas.line([(x, y), (x + canvas.uniform(-0.1, 0.1), 1.05)], canvas.pick(*GREENS[:3]), 0.02)
        count, turn = int(canvas.rng.integers(5, 10)), canvas.uniform(0, 6)
        for index in range(count):
            angle = turn + 2 * math.pi * index / count
            px, py = x + size * 0.58 * math.cos(angle), y + size * 0.58 * math.sin(angle)
            width = size * 1.5 / count
            across = (-math.sin(angle) * width, math.cos(angle) * width)
            along = (math.cos(angle) * size * 0.5, math.sin(angle) * size * 0.5)
            turns = [(math.cos(t), math.sin(t)) for t in np.linspace(0, 2 * math.pi, 14)]
            ring = [
                (px + c * along[0] + s * across[0], py + c * along[1] + s * across[1])
                for c, s in turns
            ]
            canvas.polygon(ring, shade(petal, canvas.uniform(0.85, 1.1)))
        canvas.ellipse(x, y, size * 0.26, size * 0.26, heart)


def draw_clutter(canvas: Canvas, ground: float) -> None:
    """Draw an object that has no label; its colour may be that of skin, hair or leaves."""
    palette = (*SKIN, *HAIR, *GREENS, canvas.colour(), canvas.colour(), canvas.colour())
    size = canvas.uniform(0.08, 0.3)
    x, foot = canvas.uniform(0.05, 0.95), min(1.0, ground + canvas.uniform(0.02, 0.25))
    colour = canvas.pick(*palette)
    place = canvas.at(x, foot, size)
    match int(canvas.rng.integers(7)):
        case 0:  # a ball or a fruit
            place.ellipse(0, -1, 1, 1, colour)
            place.ellipse(-0.3, -1.3, 0.3, 0.3, shade(colour, 1.3))
        case 1:  # a box
            place.box((-1, -1.4, 1, 0), colour)
            place.box((-1, -0.8, 1, -0.65), shade(colour, 0.7))
        case 2:  # a vase
            place.ellipse(0, -0.8, 0.65, 0.8, colour)
            place.box((-0.25, -2, 0.25, -1), colour)
            place.ellipse(0, -2, 0.35, 0.1, shade(colour, 0.7))
        case 3:  # a mug
            place.ellipse(0.7, -0.7, 0.4, 0.4, shade(colour, 0.8))
            canvas.box((x - size * 0.7, foot - size * 1.4, x + size * 0.7, foot), colour, 0.02)
        case 4:  # a lamp
            canvas.line([(x, foot), (x, foot - size * 2)], (60, 58, 56), 0.02)
            place.polygon([(-0.4, -2.6), (0.4, -2.6), (0.8, -1.8), (-0.8, -1.8)], colour)
        case 5:  # rocks
            for _ in range(3):
                cx, radius = x + canvas.uniform(-size, size), canvas.uniform(0.3, 0.8) * size
                ring = []
                for t in np.linspace(0, math.pi, 6):
                    across = radius * math.cos(t) * canvas.uniform(0.7, 1.1)
                    ring.append((cx + across, foot - abs(radius * math.sin(t))))
                canvas.polygon(ring, shade(colour, canvas.uniform(0.7, 1.1)))
        case _:  # a table or a bench
            place.box((-1, -0.9, 1, -0.7), colour)
            for side in (-0.85, 0.85):
                leg = x + side * size
                canvas.line([(leg, foot - size * 0.7), (leg, foot)], shade(colour, 0.7), 0.025)


def draw_night(canvas: Canvas, lamps: bool) -> None:
    """Darken the scene; if `lamps`, also draw stars, lit windows and, often, a moon."""
    tint = np.array([0.2, 0.22, 0.34]) * canvas.uniform(0.8, 1.3)
    pixels = np.asarray(canvas.image) * tint
    canvas.image.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    if not lamps:
        return
    if canvas.chance(0.6):
        radius = canvas.uniform(0.04, 0.09)
        # The moon is near the left or right edge, so that it rarely covers a face.
        x = canvas.uniform(0.06, 0.22)
        x = 1 - x if canvas.chance(0.5) else x
        canvas.ellipse(x, canvas.uniform(0.08, 0.25), radius, radius, (240, 236, 210))
    for _ in range(int(canvas.rng.integers(10, 40))):
        canvas.ellipse(canvas.uniform(0, 1), canvas.uniform(0, 0.4), 0.006, 0.006, (220, 220, 230))
    for _ in range(int(canvas.rng.integers(4, 14))):
        x, y, size = canvas.uniform(0, 1), canvas.uniform(0.4, 0.75), canvas.uniform(0.01, 0.025)
        canvas.box((x, y, x + size, y + size * 1.4), canvas.pick((255, 214, 120), (255, 240, 190)))
