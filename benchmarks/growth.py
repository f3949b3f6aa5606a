"""How a step's time grows with tokens, batch, depth and devices.

    python -m benchmarks.growth [--rounds 5] [--out docs]

All points of an axis are interleaved in one process. Beside each exponent (the slope
of log time over log size) stands that of the FLOPs by count. Devices are parts of the
host, each count in a process of its own, asked in turn for a step of the same whole
batch: what grows there is the cost of dividing the work, as no cores are added. Writes
growth.json and images/growth.png below `--out`; `--draw` draws growth.json again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import jax

from benchmarks.bare import Sizes
from benchmarks.growth_plots import draw
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, config_of

BASE = Sizes(112, 16, 192, 4, 3, 128, 1, 4)
BATCH = 8
DEVICES = (1, 2, 4, 8)
# axis -> size -> what is measured: sizes and batch.
AXES: dict[str, dict[int, tuple[Sizes, int]]] = {
    "tokens": {
        (side // 16) ** 2: (BASE._replace(image=side), BATCH)
        for side in (32, 64, 112, 224, 448)
    },
    "batch": {batch: (BASE, batch) for batch in (1, 2, 4, 8, 16, 32)},
    "depth": {depth: (BASE._replace(depth=depth), BATCH) for depth in (1, 2, 4, 8, 16)},
}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log size, by least squares.

    Args:
        sizes: positive, at least two different ones.
        costs: positive, one a size.

    Raises:
        ValueError: too few sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"needs two different sizes, got {list(sizes)}")
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    ).slope


def growth(sizes: Sequence[float], costs: Sequence[float]) -> dict[str, float]:
    """Exponents over all sizes and over the two largest, where fixed costs weigh least.

    Args:
        sizes: rising, positive.
        costs: of these, positive.
    """
    return {
        "all": round(exponent(sizes, costs), 3),
        "end": round(exponent(sizes[-2:], costs[-2:]), 3),
    }


def measure_axis(axis: str, rounds: int) -> dict[str, object]:
    """One axis: seconds and FLOPs of a step at each size."""
    trainers: dict[str, Trainer] = {}
    counts = []
    for size, (sizes, batch) in AXES[axis].items():
        trainer = Trainer(config_of(sizes, batch), sizes)
        trainers[str(size)] = trainer
        counts.append(trainer.method.flops(trainer.phase) * batch)
    return _found(axis, interleave(trainers, rounds=rounds, warmup=1), counts)


def _found(
    axis: str, seconds: dict[str, list[float]], counts: list[float]
) -> dict[str, object]:
    """What is kept of an axis; a line a size is printed, against the first one."""
    sizes = [int(name) for name in seconds]
    middle = [statistics.median(rounds) for rounds in seconds.values()]
    first = next(iter(seconds.values()))
    for size, rounds, count in zip(sizes, seconds.values(), counts, strict=True):
        report(
            f"{axis} {size} / {axis} {sizes[0]}",
            rounds,
            first,
            growth=axis,
            flop_ratio=round(count / counts[0], 3),
        )
    found = {
        "sizes": sizes,
        "seconds": [round(value, 5) for value in middle],
        "gflop": [round(count / 1e9, 4) for count in counts],
        "exponent": growth(sizes, middle),
        "flop_exponent": growth(sizes, counts),
    }
    print(json.dumps({"growth": axis, **found}), flush=True)
    return found


class Child:
    """A process with so many devices that makes one step each time it is asked."""

    def __init__(self, devices: int):
        flags = f"--xla_force_host_platform_device_count={devices}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.growth", "--serve"],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> float:
        """Seconds of a step, by the child's own clock."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=60)


def serve() -> None:
    """What a child does until its input ends."""
    trainer = Trainer(config_of(BASE, BATCH), BASE)
    jax.block_until_ready(trainer())
    for _ in sys.stdin:
        began = time.perf_counter()
        jax.block_until_ready(trainer())
        print(time.perf_counter() - began, flush=True)


def measure_devices(rounds: int) -> dict[str, object]:
    """The same batch over more and more parts of the host."""
    children = {str(count): Child(count) for count in DEVICES}
    seconds: dict[str, list[float]] = {name: [] for name in children}
    try:
        for child in children.values():
            child()
        for _ in range(rounds):
            for name, child in children.items():
                seconds[name].append(child())
    finally:
        for child in children.values():
            child.close()
    return _found("devices", seconds, [_flops(BASE, BATCH)] * len(DEVICES))


def _flops(sizes: Sizes, batch: int) -> float:
    from benchmarks.ours import build

    method = build(config_of(sizes, batch))
    return method.flops(method.phase(0, {})) * batch


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"))
    parser.add_argument("--draw", action="store_true", help="from growth.json alone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    path = options.out / "growth.json"
    if not options.draw:
        measures: dict[str, Callable[[int], dict[str, object]]] = {
            axis: lambda rounds, axis=axis: measure_axis(axis, rounds) for axis in AXES
        }
        measures["devices"] = measure_devices
        found = {axis: measure(options.rounds) for axis, measure in measures.items()}
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "images").mkdir(exist_ok=True)
    draw(json.loads(path.read_text()), options.out / "images" / "growth.png")


if __name__ == "__main__":
    main()
