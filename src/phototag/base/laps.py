"""Where a stage's time goes."""

import time

import psutil


class Laps:
    """Times the parts of a process, from its start."""

    def __init__(self) -> None:
        """Start at the process's own start, so that its imports count."""
        self._last = psutil.Process().create_time()
        self._seconds: dict[str, float] = {}

    def end(self, part: str) -> None:
        """Say that a part has ended; the next begins."""
        now = time.time()
        self._seconds[part] = now - self._last
        self._last = now

    def __str__(self) -> str:
        """Tell each part's seconds, and their sum."""
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in self._seconds.items())
        return f"{sum(self._seconds.values()):.1f} s: {parts}"
