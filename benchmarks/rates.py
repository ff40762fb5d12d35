"""Measurement of throughput in photos per second."""

import time
from collections.abc import Callable

SECONDS = 2.0


def measure_rate(run: Callable[[], object], batch: int) -> float:
    """Call `run`, which processes `batch` photos, for `SECONDS`; return photos per second."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        run()
        done += batch
    return done / elapsed
