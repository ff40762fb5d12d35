"""Canvas on which a scene is drawn, and colours that several objects share."""

from collections.abc import Sequence
from copy import copy

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

SKIN = ((236, 196, 165), (214, 165, 128), (176, 122, 88), (118, 78, 54))
HAIR = ((40, 28, 22), (92, 58, 34), (168, 122, 66), (214, 184, 120), (130, 128, 126))
GREENS = ((62, 110, 48), (98, 134, 60), (44, 82, 52), (140, 142, 66), (170, 110, 50))
SKIES = ((96, 150, 214), (150, 186, 220), (196, 206, 214), (232, 184, 140), (120, 136, 170))


class Canvas:
    """A square RGB image with drawing methods.

    Coordinates are fractions of the side, 0..1, measured from the top left corner. `at` returns a
    view of the same image that has another origin and another unit of length.
    """

    def __init__(self, side: int, rng: np.random.Generator) -> None:
        self.side = side
        self.rng = rng
        self.image = Image.new("RGB", (side, side))
        self.draw = ImageDraw.Draw(self.image)
        self.x, self.y, self.unit, self.way = 0.0, 0.0, 1.0, 1

    def at(self, x: float, y: float, unit: float, way: int = 1) -> "Canvas":
        """Return a view with origin (x, y) and length unit `unit`; if `way` is -1, mirror x."""
        view = copy(self)
        view.x, view.y, view.unit, view.way = x, y, unit, way
        return view

    def uniform(self, low: float, high: float) -> float:
        """Sample a number uniformly from [low, high)."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Sample a boolean that is True with the given probability, 0..1."""
        return bool(self.rng.random() < probability)

    def colour(self, low: int = 20, high: int = 235) -> Colour:
        """Sample a colour whose channels are uniform in low..high - 1."""
        red, green, blue = self.rng.integers(low, high, 3).tolist()
        return red, green, blue

    def pick(self, *colours: Colour) -> Colour:
        """Sample one of the colours and vary each channel by at most 18."""
        colour = colours[int(self.rng.integers(len(colours)))]
        varied = np.array(colour) + self.rng.integers(-18, 19, 3)
        red, green, blue = varied.clip(0, 255).tolist()
        return red, green, blue

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse with centre (x, y) and radii rx and ry."""
        cx, cy = self.x + self.way * self.unit * x, self.y + self.unit * y
        rx, ry = self.unit * rx, self.unit * ry
        box = (cx - rx, cy - ry, cx + rx, cy + ry)
        self.draw.ellipse([value * self.side for value in box], fill=colour)

    def box(self, box: Box, colour: Colour, radius: float = 0.0) -> None:
        """Fill a rectangle (left, top, right, bottom) whose corners have the given radius."""
        (left, top), (right, bottom) = self._scale([box[:2], box[2:]])
        if right > left and bottom > top:
            corner = self.unit * radius * self.side
            self.draw.rounded_rectangle([left, top, right, bottom], corner, fill=colour)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon whose corners are `points`."""
        self.draw.polygon(self._scale(points), fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw straight lines that connect the points."""
        pixels = max(1, round(width * self.unit * self.side))
        self.draw.line(self._scale(points), fill=colour, width=pixels, joint="curve")

    def gradient(self, top: Colour, bottom: Colour, upper: float, lower: float) -> None:
        """Fill the rows from `upper` to `lower` with a gradient from `top` to `bottom`."""
        first, last = round(upper * self.side), round(lower * self.side)
        if last <= first:
            return
        blend = np.linspace(0, 1, last - first)[:, None, None]
        rows = np.array(top) * (1 - blend) + np.array(bottom) * blend
        pixels = np.broadcast_to(rows, (last - first, self.side, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, first))

    def _scale(self, points: Sequence[Point]) -> list[Point]:
        """Convert points from the units of this view to pixels."""
        across, down = self.way * self.unit, self.unit
        return [
            ((self.x + across * x) * self.side, (self.y + down * y) * self.side) for x, y in points
        ]


def shade(colour: Colour, factor: float) -> Colour:
    """Return a darker colour (factor below 1) or a lighter colour (factor above 1)."""
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue
