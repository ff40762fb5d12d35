import re

from phototag.base.laps import Laps


def test_parts_add_up() -> None:
    laps = Laps()
    laps.end("imports")
    laps.end("the rest")
    total, first, second = map(float, re.findall(r"[\d.]+", str(laps)))
    assert re.fullmatch(r"[\d.]+ s: imports [\d.]+, the rest [\d.]+", str(laps))
    # The process has run for a while; between the two ends nothing was done.
    assert abs(total - first - second) <= 0.1
    assert second <= first
