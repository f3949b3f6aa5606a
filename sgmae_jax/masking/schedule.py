"""Ratio schedules of a few static values, so that each is compiled just once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ratio_buckets(start: float, end: float, buckets: int) -> tuple[float, ...]:
    """Evenly spaced ratios from start to end, both included.

    Args:
        start: ratio of the first steps, in [0, 1].
        end: ratio of the last steps, in [0, 1]; may be below `start`.
        buckets: how many, >= 2, or 1 where start equals end.

    Returns:
        Ratios, rounded to nine decimals so that 0.6 is 0.6.

    Raises:
        ValueError: a value out of range.
    """
    for name, value in (("start", start), ("end", end)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    if buckets < 1 or (buckets == 1 and start != end):
        raise ValueError(f"buckets must be >= 2 from {start} to {end}, got {buckets}")
    return tuple(round(float(ratio), 9) for ratio in np.linspace(start, end, buckets))


def bucket_at(step: int, total_steps: int, ratios: Sequence[float]) -> float:
    """The ratio of a step: each takes an equal share of the run, in turn.

    Args:
        step: host integer, >= 0; the last ratio holds after the run's end.
        total_steps: length of the run, >= 1.
        ratios: from `ratio_buckets`.

    Returns:
        One of `ratios`, to be passed on as a static argument.

    Raises:
        ValueError: a value out of range.
    """
    if step < 0 or total_steps < 1 or not ratios:
        raise ValueError(
            "needs step >= 0, total_steps >= 1 and at least one ratio, got "
            f"{step}, {total_steps}, {tuple(ratios)}"
        )
    return ratios[min(step * len(ratios) // total_steps, len(ratios) - 1)]
