"""Learning rates over the course of training."""

import math


def learning_rate(name: str, step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """Return the learning rate of one step.

    Args:
        name: constant | cosine (falls to 0 at the end) | one-cycle (Smith and Topin 2018, in
            PyTorch's form: from 1/25 up to the peak over the first 30 %, then down to 1/250 000).
        step: From 0.
        total_steps: Of the whole training.
        warmup_steps: Over which constant and cosine rise linearly to the peak.
        peak: The largest learning rate.
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
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
