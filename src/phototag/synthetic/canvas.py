"""The canvas on which a scene is drawn, and shared colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]


class Canvas:
    """A square RGB image; coordinates are fractions of its side, 0..1 from the top left."""

    def __init__(self, side: int, rng: np.random.Generator) -> None:
        self.side = side
        self.rng = rng
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)

    def uniform(self, low: float, high: float) -> float:
        """Sample a number uniformly."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Sample True with a probability of 0..1."""
        return bool(self.rng.random() < probability)

    def colour(self, low: int = 20, high: int = 235) -> Colour:
        """Sample a colour with each channel in low..high - 1."""
        red, green, blue = (int(value) for value in self.rng.integers(low, high, 3))
        return red, green, blue

    def pick(self, *colours: Colour) -> Colour:
        """Sample one of the colours and vary it slightly."""
        return self.near(colours[int(self.rng.integers(len(colours)))], 18)

    def near(self, colour: Colour, spread: int) -> Colour:
        """Sample a colour whose channels differ by at most `spread`."""
        moved = np.clip(np.array(colour) + self.rng.integers(-spread, spread + 1, 3), 0, 255)
        return int(moved[0]), int(moved[1]), int(moved[2])

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse given by its centre and radii."""
        box = (x - rx, y - ry, x + rx, y + ry)
        self.draw.ellipse([value * self.side for value in box], fill=colour)

    def box(self, box: Box, colour: Colour, radius: float = 0.0) -> None:
        """Fill a rectangle (left, top, right, bottom) with corners of the given radius."""
        left, top, right, bottom = (value * self.side for value in box)
        if right > left and bottom > top:
            self.draw.rounded_rectangle([left, top, right, bottom], radius * self.side, fill=colour)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=colour)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a connected line."""
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self.draw.line(scaled, fill=colour, width=max(1, round(width * self.side)), joint="curve")

    def gradient(self, top: Colour, bottom: Colour, box: Box) -> None:
        """Fill a rectangle with a vertical colour gradient."""
        left, upper, right, lower = (round(value * self.side) for value in box)
        if right <= left or lower <= upper:
            return
        blend = np.linspace(0, 1, lower - upper)[:, None, None]
        rows = np.array(top) * (1 - blend) + np.array(bottom) * blend
        pixels = np.broadcast_to(rows, (lower - upper, right - left, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, upper))


SKIN: tuple[Colour, ...] = ((236, 196, 165), (214, 165, 128), (176, 122, 88), (118, 78, 54))
HAIR: tuple[Colour, ...] = (
    (40, 28, 22),
    (92, 58, 34),
    (168, 122, 66),
    (214, 184, 120),
    (130, 128, 126),
)
GREENS: tuple[Colour, ...] = (
    (62, 110, 48),
    (98, 134, 60),
    (44, 82, 52),
    (140, 142, 66),
    (170, 110, 50),
)
SKIES: tuple[Colour, ...] = (
    (96, 150, 214),
    (150, 186, 220),
    (196, 206, 214),
    (232, 184, 140),
    (120, 136, 170),
)


def shade(colour: Colour, factor: float) -> Colour:
    """Return a darker (factor below 1) or lighter colour."""
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue
