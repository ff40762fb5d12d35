"""People of a scene: heads, portraits and standing figures."""

from collections.abc import Sequence

import numpy as np

from phototag.synthetic.canvas import HAIR, SKIN, Canvas, shade


def draw_head(canvas: Canvas, x: float, y: float, size: float, kind: str) -> None:
    """Draw a head; `kind` is female, male, baby or unclear (a hood that hides the face)."""
    skin, hair = canvas.pick(*SKIN), canvas.pick(*HAIR)
    if kind == "unclear":
        hood = canvas.colour(30, 200)
        canvas.ellipse(x, y, size * 0.8, size * 0.98, hood)
        canvas.ellipse(x, y - size * 0.1, size * 0.6, size * 0.7, shade(hood, 0.8))
        return
    if kind == "female":
        length = canvas.uniform(1.1, 1.9)
        canvas.box((x - size, y - size * 0.5, x + size, y + size * length), hair, size * 0.5)
        canvas.ellipse(x, y - size * 0.35, size, size * 0.85, hair)
    width = 0.95 if kind == "baby" else 0.72
    canvas.box(
        (x - size * 0.28, y + size * 0.5, x + size * 0.28, y + size * 1.35), shade(skin, 0.85)
    )
    canvas.ellipse(x, y, size * width, size * (0.9 if kind == "baby" else 0.95), skin)
    if kind == "male":
        canvas.box(
            (x - size * 0.74, y - size * 1.05, x + size * 0.74, y - size * 0.5), hair, size * 0.3
        )
        for side in (-1, 1):
            canvas.ellipse(x + side * size * 0.74, y + size * 0.05, size * 0.12, size * 0.2, skin)
        if canvas.chance(0.55):
            canvas.ellipse(x, y + size * 0.68, size * 0.52, size * 0.36, hair)
    elif kind == "female":
        fringe = [(x - size * 0.8, y - size * 0.1), (x - size * 0.5, y - size * 0.95)]
        fringe += [(x + size * 0.5, y - size * 0.95), (x + size * 0.1, y - size * 0.55)]
        canvas.polygon(fringe, hair)
    else:
        canvas.ellipse(x, y - size * 0.88, size * 0.25, size * 0.12, hair)
    eye = size * (0.14 if kind == "baby" else 0.09)
    for side in (-1, 1):
        canvas.ellipse(x + side * size * 0.32, y - size * 0.05, eye * 1.3, eye, (245, 245, 245))
        canvas.ellipse(x + side * size * 0.32, y - size * 0.05, eye * 0.75, eye * 0.9, (40, 30, 26))
        if kind == "female":
            lash = (
                (x + side * size * 0.2, y - size * 0.2),
                (x + side * size * 0.48, y - size * 0.18),
            )
            canvas.line(lash, (30, 22, 20), size * 0.06)
    canvas.line(
        [(x, y), (x - size * 0.06, y + size * 0.25), (x + size * 0.04, y + size * 0.27)],
        shade(skin, 0.7),
        size * 0.05,
    )
    lips = canvas.pick((190, 50, 60)) if kind == "female" else shade(skin, 0.62)
    canvas.ellipse(
        x, y + size * 0.52, size * (0.24 if kind != "baby" else 0.14), size * 0.085, lips
    )


def draw_portrait(canvas: Canvas, kinds: Sequence[str]) -> None:
    """Draw the heads and shoulders of one or two people, filling the image."""
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
    """Draw full figures of people side by side."""
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
                canvas.line(
                    [(x + side * 0.02, hip), (x + side * 0.02, foot)], canvas.pick(*SKIN), 0.025
                )
            skirt = foot - height * 0.2
            canvas.polygon(
                [
                    (x - head * 0.7, neck),
                    (x + head * 0.7, neck),
                    (x + wide, skirt),
                    (x - wide, skirt),
                ],
                cloth,
            )
        elif kind == "unclear":
            wide = height * 0.14
            canvas.box((x - wide, neck, x + wide, foot), cloth, wide * 0.7)
        else:
            wide = height * 0.15
            for side in (-1, 1):
                canvas.line(
                    [(x + side * wide * 0.5, hip), (x + side * wide * 0.6, foot)],
                    legs,
                    height * 0.1,
                )
            canvas.box((x - wide, neck, x + wide, hip), cloth, wide * 0.4)
        for side in (-1, 1):
            hand = (x + side * (height * 0.2), hip + canvas.uniform(-0.12, 0.02))
            canvas.line(
                [(x + side * wide * 0.7, neck + head * 0.5), hand],
                shade(cloth, 0.8),
                height * 0.055,
            )
        draw_head(canvas, x, foot - height + head, head, kind)
