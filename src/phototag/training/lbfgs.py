"""The steps of L-BFGS (Liu and Nocedal, 1989) for many independent problems, one in each row."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

TRIALS = 10  # largest number of steps that a line search tries
DECREASE = 0.3  # a line search ends when it has multiplied each slope by at most this factor

Result = TypeVar("Result")
Memory = Sequence[tuple[Tensor, Tensor]]  # earlier steps and the changes of the gradient


def estimate_newton_step(
    gradient: Tensor, memory: Memory, condition: Callable[[Tensor], Tensor]
) -> Tensor:
    """Multiply the gradient by the estimated inverse of the Hessian, [num_problems, width].

    `condition` multiplies vectors by a first estimate of this inverse.
    """
    found, factors = gradient.clone(), []
    for step, change in reversed(memory):
        scale = 1 / (step * change).sum(dim=1).clamp(min=1e-30)
        factors.append((scale, scale * (step * found).sum(dim=1)))
        found -= factors[-1][1][:, None] * change
    found = condition(found)
    for (step, change), (scale, factor) in zip(memory, reversed(factors), strict=True):
        found += (factor - scale * (change * found).sum(dim=1))[:, None] * step
    return found


def search_line(
    slope: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Result]]
) -> tuple[Tensor, Result]:
    """Find a step along the direction of each problem that reduces the slope to nearly 0.

    The search brackets the zero of the slope, and interpolates linearly (regula falsi).

    Args:
        slope: Slope of each problem's loss at step 0, negative, [num_problems].
        evaluate: Function that maps steps to the slopes at these steps, and to a result.

    Returns:
        Steps, [num_problems], and the result of `evaluate` for these steps.
    """
    low, slope_low = torch.zeros_like(slope), slope
    high, slope_high = torch.full_like(slope, torch.inf), -slope
    steps = torch.ones_like(slope)
    for trial in range(TRIALS):
        found, result = evaluate(steps)
        near = found.abs() <= DECREASE * slope.abs()
        if near.all() or trial == TRIALS - 1:
            break
        before = found < 0
        # Without an upper bound, extrapolate from step 0, but by a factor of 4 at most.
        further = torch.clamp(slope / (slope - found), 0, 4) * steps
        further = torch.where(found > slope, further, 4 * steps)
        low, slope_low = torch.where(before, steps, low), torch.where(before, found, slope_low)
        high = torch.where(before, high, steps)
        slope_high = torch.where(before, slope_high, found)
        share = (slope_low / (slope_low - slope_high)).clamp(0.1, 0.9)
        inner = low + share * (high - low)
        steps = torch.where(near, steps, torch.where(high.isinf(), further, inner))
    return steps, result
