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
    programs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    warmup: int = 2,
    lead: int = 0,
) -> dict[str, list[float]]:
    """Seconds of each program, called in turn: A B A B, so that drift hits all alike.

    Args:
        programs: name -> call; what it returns is waited for.
        rounds: timed calls of each, at least 5.
        warmup: calls before, which compile.
        lead: untimed calls before each timed one. What a program left to the system
            while another ran is taken up again in them, as in training it never is.
    """
    for call in programs.values():
        for _ in range(warmup):
            jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds):
        names = list(programs)
        # The order changes from round to round: no program always follows the same.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for _ in range(lead):
                jax.block_until_ready(programs[name]())
            began = time.perf_counter()
            jax.block_until_ready(programs[name]())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def report(
    what: str,
    ours: list[float],
    other: list[float],
    *,
    row: int | None = None,
    target: float | tuple[float, float] | None = None,
    flop_ratio: float | None = None,
    **facts: object,
) -> dict[str, object]:
    """Prints and returns one JSON line: the ratio ours / other.

    The ratio is the median of the rounds' own ratios; its spread is their quartiles.

    Args:
        what: the two things compared, as "this / that".
        ours: seconds of each round.
        other: the same of the other thing, in the same rounds.
        row: of the table in docs/performance.md that the line belongs to.
        target: what the ratio may be at most, or the two bounds that it has to keep.
        flop_ratio: what the ratio would be by FLOPs alone.
        facts: further fields of the line, such as sizes.
    """
    ratios = sorted(a / b for a, b in zip(ours, other, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4)
    median = statistics.median(ratios)
    least, most = target if isinstance(target, tuple) else (0.0, target)
    line = {
        "ratio": what,
        "row": row,
        "median": round(median, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "by_flops": None if flop_ratio is None else round(flop_ratio, 4),
        "target": target,
        "met": None if most is None else least <= median <= most,
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
