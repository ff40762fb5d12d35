"""Learning rate schedules."""

import math


def learning_rate(name: str, step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """Return the learning rate of one step.

    Args:
        name: `constant`, `cosine` (falls to 0 at the end) or `one-cycle` (Smith and Topin, 2018, in
            PyTorch's form: from peak / 25 up to the peak in the first 30 %, then down to
            peak / 250 000).
        step: Number of the step, from 0.
        total_steps: Steps of the whole training.
        warmup_steps: Steps in which constant and cosine rise linearly to the peak.
        peak: Largest learning rate.
    """
    if name == "one-cycle":
        turn = 0.3 * total_steps - 1
        if step <= turn:
            return _anneal(peak / 25, peak, step / turn)
        return _anneal(peak, peak / 250_000, (step - turn) / (total_steps - 1 - turn))
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if name == "cosine":
        return _anneal(peak, 0, (step - warmup_steps) / max(total_steps - warmup_steps, 1))
    return peak


def _anneal(start: float, end: float, share: float) -> float:
    """Interpolate by half a cosine period; `share` is 0 at the start and 1 at the end."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
