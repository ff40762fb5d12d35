"""Draw the people of a scene: heads, portraits and standing figures."""

from collections.abc import Sequence

import numpy as np

from phototag.synthetic.canvas import HAIR, SKIN, Canvas, shade


def draw_head(canvas: Canvas, x: float, y: float, size: float, kind: str) -> None:
    """Draw a head; `kind` is female, male, baby, or unclear (a hood hides the face)."""
    skin, hair = canvas.pick(*SKIN), canvas.pick(*HAIR)
    head = canvas.at(x, y, size)
    if kind == "unclear":
        hood = canvas.colour(30, 200)
        head.ellipse(0, 0, 0.8, 0.98, hood)
        head.ellipse(0, -0.1, 0.6, 0.7, shade(hood, 0.8))
        return
    if kind == "female":
        head.box((-1, -0.5, 1, canvas.uniform(1.1, 1.9)), hair, 0.5)
        head.ellipse(0, -0.35, 1, 0.85, hair)
    head.box((-0.28, 0.5, 0.28, 1.35), shade(skin, 0.85))
    head.ellipse(0, 0, *((0.95, 0.9) if kind == "baby" else (0.72, 0.95)), skin)
    if kind == "male":
        head.box((-0.74, -1.05, 0.74, -0.5), hair, 0.3)
        for side in (-1, 1):
            head.ellipse(side * 0.74, 0.05, 0.12, 0.2, skin)
        if canvas.chance(0.55):
            head.ellipse(0, 0.68, 0.52, 0.36, hair)
    elif kind == "female":
        head.polygon([(-0.8, -0.1), (-0.5, -0.95), (0.5, -0.95), (0.1, -0.55)], hair)
    else:
        head.ellipse(0, -0.88, 0.25, 0.12, hair)
    for side in (-1, 1):
        radius = size * (0.14 if kind == "baby" else 0.09)
        eye = canvas.at(x + side * size * 0.32, y - size * 0.05, radius)
        eye.ellipse(0, 0, 1.3, 1, (245, 245, 245))
        eye.ellipse(0, 0, 0.75, 0.9, (40, 30, 26))
        if kind == "female":
            head.line([(side * 0.2, -0.2), (side * 0.48, -0.18)], (30, 22, 20), 0.06)
    head.line([(0, 0), (-0.06, 0.25), (0.04, 0.27)], shade(skin, 0.7), 0.05)
    lips = canvas.pick((190, 50, 60)) if kind == "female" else shade(skin, 0.62)
    head.ellipse(0, 0.52, 0.14 if kind == "baby" else 0.24, 0.085, lips)


def draw_portrait(canvas: Canvas, kinds: Sequence[str]) -> None:
    """Draw the heads and shoulders of one or two people so that they fill the image."""
    places = [canvas.uniform(0.35, 0.65)] if len(kinds) == 1 else [0.3, 0.7]
    for place, kind in zip(places, kinds, strict=True):
        size = canvas.uniform(0.22, 0.28) if len(kinds) == 1 else canvas.uniform(0.16, 0.2)
        x, y = place + canvas.uniform(-0.04, 0.04), canvas.uniform(0.34, 0.48)
        cloth, half = canvas.colour(), size * (1.5 if kind in ("male", "unclear") else 1.2)
        shoulder = y + size * 1.25
        body = [(x - half, 1.05), (x - half, shoulder + size * 0.5), (x - size * 0.4, shoulder)]
        body += [(x + size * 0.4, shoulder), (x + half, shoulder + size * 0.5), (x + half, 1.05)]
        if kind != "female":
            canvas.polygon(body, cloth)
        draw_head(canvas, x, y, size, kind)
        if kind == "female":
            canvas.polygon(body, cloth)


def draw_figures(canvas: Canvas, kinds: Sequence[str], ground: float) -> None:
    """Draw standing people, from head to foot, side by side."""
    slots = np.linspace(0, 1, len(kinds) + 2)[1:-1]
    for slot, kind in zip(slots, kinds, strict=True):
        height = canvas.uniform(0.62, 0.88) * (0.65 if kind == "baby" else 1)
        x = float(slot) + canvas.uniform(-0.06, 0.06)
        foot = min(0.99, max(ground + canvas.uniform(0.1, 0.25), height + 0.05))
        head, cloth, legs = height * 0.15, canvas.colour(), canvas.colour(20, 140)
        neck, hip = foot - height + head * 2, foot - height * 0.45
        if kind == "female":
            wide = height * 0.24
            for side in (-1, 1):
                place = x + side * 0.02
                canvas.line([(place, hip), (place, foot)], canvas.pick(*SKIN), 0.025)
            dress = [(x - head * 0.7, neck), (x + head * 0.7, neck)]
            dress += [(x + wide, foot - height * 0.2), (x - wide, foot - height * 0.2)]
            canvas.polygon(dress, cloth)
        elif kind == "unclear":
            wide = height * 0.14
            canvas.box((x - wide, neck, x + wide, foot), cloth, wide * 0.7)
        else:
            wide = height * 0.15
            for side in (-1, 1):
                leg = [(x + side * wide * 0.5, hip), (x + side * wide * 0.6, foot)]
                canvas.line(leg, legs, height * 0.1)
            canvas.box((x - wide, neck, x + wide, hip), cloth, wide * 0.4)
        for side in (-1, 1):
            arm = [(x + side * wide * 0.7, neck + head * 0.5)]
            arm.append((x + side * (height * 0.2), hip + canvas.uniform(-0.12, 0.02)))
            canvas.line(arm, shade(cloth, 0.8), height * 0.055)
        draw_head(canvas, x, foot - height + head, head, kind)
