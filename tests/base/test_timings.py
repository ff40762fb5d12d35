import re

from phototag.base.timings import Timings


def test_parts_add_up() -> None:
    timings = Timings()
    timings.end("imports")
    timings.end("the rest")
    total, first, second = map(float, re.findall(r"[\d.]+", str(timings)))
    assert re.fullmatch(r"[\d.]+ s: imports [\d.]+, the rest [\d.]+", str(timings))
    # The process has run for a while; between the two ends nothing was done.
    assert abs(total - first - second) <= 0.1
    assert second <= first
