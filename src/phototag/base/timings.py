"""Measure how long each part of a stage takes."""

import time

import psutil


class Timings:
    """Seconds spent in each part of a process, measured from the start of the process."""

    def __init__(self) -> None:
        """Start measuring at the start of the process, so that imports are included."""
        self._last = psutil.Process().create_time()
        self._seconds: dict[str, float] = {}

    def end(self, part: str) -> None:
        """Record the seconds spent in the part that ends now, and start the next part."""
        now = time.time()
        self._seconds[part] = now - self._last
        self._last = now

    def __str__(self) -> str:
        """Return the total number of seconds and the seconds of each part as text."""
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in self._seconds.items())
        return f"{sum(self._seconds.values()):.1f} s: {parts}"
