"""How often something runs in a second."""

import time
from collections.abc import Callable

SECONDS = 2.0


def measure_rate(run: Callable[[], object], batch: int) -> float:
    """Return photos a second, of a call that takes a batch of them."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        run()
        done += batch
    return done / elapsed
