"""Measurement of calls per second."""

import time
from collections.abc import Callable

SECONDS = 2.0


def measure_rate(run: Callable[[], object], batch: int) -> float:
    """Return photos per second of a function that processes `batch` photos per call."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        run()
        done += batch
    return done / elapsed
