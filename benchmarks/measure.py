"""A/B timing: interleaved rounds, medians with spread, one JSON line a ratio."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import jax


def interleave(
    programs: Mapping[str, Callable[[], object]], *, rounds: int = 7, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each program, called in turn: A B A B, so that drift hits all alike.

    Args:
        programs: name -> call; what it returns is waited for.
        rounds: timed calls of each, at least 5.
        warmup: calls before, which compile.
    """
    for call in programs.values():
        for _ in range(warmup):
            jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds):
        names = list(programs)
        # The order changes from round to round: no program always follows the same.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            jax.block_until_ready(programs[name]())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def report(
    what: str,
    ours: list[float],
    other: list[float],
    *,
    target: float | None = None,
    **facts: object,
) -> dict[str, object]:
    """Prints and returns one JSON line: the ratio ours / other.

    The ratio is the median of the rounds' own ratios; its spread is their quartiles.
    """
    ratios = sorted(a / b for a, b in zip(ours, other, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4)
    line = {
        "ratio": what,
        "median": round(statistics.median(ratios), 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "target": target,
        "met": None if target is None else statistics.median(ratios) <= target,
        "ours_ms": round(1e3 * statistics.median(ours), 2),
        "other_ms": round(1e3 * statistics.median(other), 2),
        "rounds": len(ratios),
        **facts,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(line), flush=True)
    return line
