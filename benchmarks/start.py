"""How long the program takes to its first step; one JSON line a ratio.

    python -m benchmarks.start [--rounds 5] [--full]

Each start is a process of its own: `--help`, the imports alone, a refused config, and
a run up to its first step, with no program compiled before (cold) and with all of them
in the cache of an earlier start (warm). A last run moves its mask ratio from 0.5 to
0.9, and its compilations of the step are counted. `--full` adds ViT-B/16 at 224
pixels, batch 2, to the quickstart's network.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from benchmarks.measure import report

HELP, IMPORTS, COLD, WARM = 1.5, 3.0, 25.0, 8.0
BUCKETS = 5
FULL = {
    "data.image_size": 224,
    "data.batch_size": 2,
    "data.in_memory": False,
    "model.preset": "vit_b",
    "model.width": None,
    "model.depth": None,
    "model.heads": None,
    "model.patch_size": 16,
    "model.decoder_width": 512,
    "model.decoder_depth": 8,
    "model.decoder_heads": 16,
}
RAMP = {
    "epochs": None,
    "steps": 4 * BUCKETS,
    "data.batch_size": 16,
    "model.width": 24,
    "model.depth": 1,
    "model.heads": 2,
    "model.decoder_width": 16,
    "model.decoder_depth": 1,
    "model.decoder_heads": 2,
    "optim.warmup_epochs": 0.001,
    "mask.ratio": 0.5,
    "mask.ratio_end": 0.9,
    "mask.buckets": BUCKETS,
    "log.tensorboard": False,
}


def timed(words: Sequence[str], expected: int = 0) -> float:
    """Seconds that a Python process takes from its start to its end."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != expected:
        raise RuntimeError(f"{words}: exit code {done.returncode}\n{done.stderr}")
    return seconds


def run(
    fields: Mapping[str, object], workdir: pathlib.Path, cache: pathlib.Path, steps: int
) -> dict:
    """What `benchmarks.start_child` notes of one run of the quickstart.

    Args:
        fields: of the config, that are changed.
        workdir: a new run directory.
        cache: of compiled programs.
        steps: after which it ends, at least 1.
    """
    words = ["--config", "quickstart", "--workdir", str(workdir)]
    words += [f"--config.{name}={value}" for name, value in fields.items()]
    child = [
        sys.executable,
        "-m",
        "benchmarks.start_child",
        str(time.time()),
        str(steps),
    ]
    done = subprocess.run(
        child + words,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def slowest_imports(text: str, count: int = 8) -> dict[str, float]:
    """The modules that take longest by themselves, from `python -X importtime`.

    Args:
        text: what it wrote.
        count: of modules, at least 1.

    Returns:
        module -> milliseconds, the slowest first.
    """
    lines = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", text)
    found = sorted(((int(own), name) for own, name in lines), reverse=True)
    return {name: round(own / 1e3, 1) for own, name in found[:count]}


def _seconds(what: str, found: list[float], target: float, **facts: object) -> None:
    """A time is reported as its ratio to a second, so that all lines are alike."""
    report(what, found, [1.0] * len(found), target=target, row=20, **facts)


def processes(rounds: int) -> None:
    """What needs no training: `--help`, imports, a config that is refused."""
    imports = "import sgmae_jax.tasks"
    wrong = ["-m", "sgmae_jax.main", "--config", "quickstart", "--config.stepz=1"]
    found: dict[str, list[float]] = {"python": [], "help": [], "imports": [], "bad": []}
    for _ in range(rounds):
        found["python"].append(timed(["-c", "pass"]))
        found["help"].append(timed(["-m", "sgmae_jax.main", "--help"]))
        found["imports"].append(timed(["-c", imports]))
        found["bad"].append(timed(wrong, expected=2))
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", imports],
        capture_output=True,
        text=True,
    )
    _seconds("--help, seconds", found["help"], HELP)
    _seconds(
        "imports alone, seconds",
        found["imports"],
        IMPORTS,
        python=round(statistics.median(found["python"]), 3),
        slowest_ms=slowest_imports(listed.stderr),
    )
    _seconds("a config that is refused, seconds", found["bad"], IMPORTS)


def first_steps(fields: Mapping[str, object], size: str, rounds: int) -> None:
    """From the start of the process to the end of the first step, cold and warm."""
    found: dict[str, list[dict]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for number in range(rounds):
            for kind in found:  # warm: what the cold one before has compiled
                work, cache = folder / f"{kind}_{number}", folder / f"cache_{number}"
                found[kind].append(run(fields, work, cache, 1))
    seconds = {
        kind: [one["at"]["first_step"] for one in all_of]
        for kind, all_of in found.items()
    }
    for kind, target in (("cold", COLD), ("warm", WARM)):
        middle = {
            part: {
                name: round(
                    statistics.median(one[part].get(name, 0) for one in found[kind]), 3
                )
                for name in found[kind][0][part]
            }
            for part in ("at", "cpu", "seconds")
        }
        _seconds(f"start to first step, {kind}", seconds[kind], target, size=size)
        print(json.dumps({"phases": kind, "size": size, "row": 20, **middle}))
    report(
        "start to first step, warm / cold",
        seconds["warm"],
        seconds["cold"],
        row=20,
        size=size,
    )


def compilations(fields: Mapping[str, object]) -> int:
    """How many times the steps of a run compile their program."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = run(fields, folder / "run", folder / "cache", int(fields["steps"]))
    return found["compiled"]["step"]


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    processes(options.rounds)
    first_steps({}, "quickstart", options.rounds)
    if options.full:
        first_steps(FULL, "ViT-B/16, 224 px, batch 2", options.rounds)
    count = float(compilations(RAMP))
    report(
        "compilations of the step / buckets, ratio 0.5 to 0.9",
        [count, count],
        [float(BUCKETS)] * 2,
        target=1,
        row=22,
        compilations=int(count),
        buckets=BUCKETS,
    )


if __name__ == "__main__":
    main()
