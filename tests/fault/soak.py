"""F23: a tiny run under kills, signals, bad files and NaN batches, for a long time.

    python -m tests.fault.soak --minutes 120 --workdir DIR

Two runs side by side, on the same folder of images: one is left alone, the other is
killed, stopped and started again at random. Both have the same bad files in their data
and the same poisoned steps. When the time is over, every loss that both have written
must be equal, and in the longest stretch of one process its memory flat.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from tests.tiny import arguments, environment, losses

IMAGES, BAD = 400, 4
FLAT = 0.05
# Of both schedules; more than a soak of days comes to.
STEPS = 10_000_000
# Seconds of compiling and first checkpoints, in which a process still grows.
WARM_UP = 20.0
_MASKS = """
import jax.numpy as jnp
from sgmae_jax.masking import random_mask

def poisoned(keys, context, *, ratio, every):
    mask = random_mask(keys, context, ratio=ratio)
    bad = (context.step > 0) & (context.step % every == 0)
    return mask._replace(
        loss_weight=mask.loss_weight.at[0].multiply(jnp.where(bad, jnp.nan, 1.0))
    )
"""


@dataclasses.dataclass
class Soaked:
    """What a soak has found; memory in MiB, of the longest warm stretch.

    `steps`: of both runs, as written; `alone`: of the run that nobody harms.
    """

    steps: int
    alone: int
    equal: bool
    void: int
    kills: int
    signals: int
    seconds: float
    stretch: float
    memory: tuple[float, float]

    @property
    def growth(self) -> float:
        """Share by which the last third of the stretch needs more than the first."""
        return self.memory[1] / self.memory[0] - 1


def soak(folder: pathlib.Path, *, minutes: float, seed: int = 0) -> Soaked:
    """Runs both for `minutes`, one of them disturbed.

    Args:
        folder: where everything is written; empty or absent.
        minutes: until both are asked to stop.
        seed: of the moments and kinds of the faults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_images(folder / "images", seed)
    (folder / "soak_masks.py").write_text(_MASKS)
    begin = time.monotonic()
    clean = _run(folder, "clean")
    try:
        lives = _disturb(folder, begin + 60 * minutes, random.Random(seed), clean)
        clean.send_signal(signal.SIGTERM)
        if code := clean.wait():
            raise RuntimeError(f"exit code {code}, see {folder / 'clean.log'}")
    finally:
        clean.kill()
    seconds = time.monotonic() - begin
    undisturbed, torn = losses(folder / "clean"), losses(folder / "torn")
    shared = {step: torn[step] for step in torn if step in undisturbed}
    steps = len(shared)
    equal = list(shared.items()) == list(undisturbed.items())[:steps]
    longest = max((sizes for _, sizes in lives), key=len)
    third = max(len(longest) // 3, 1)
    return Soaked(
        steps=steps,
        alone=len(undisturbed),
        equal=equal and list(shared) == list(range(1, steps + 1)),
        void=sum(loss is None for loss in shared.values()),
        kills=sum(harm == signal.SIGKILL for harm, _ in lives),
        signals=sum(harm == signal.SIGTERM for harm, _ in lives),
        seconds=seconds,
        stretch=float(len(longest)),
        memory=(
            float(np.median(longest[:third])) if longest else 1.0,
            float(np.median(longest[-third:])) if longest else 1.0,
        ),
    )


def _disturb(folder: pathlib.Path, end: float, rng: random.Random, other):
    """The lives of the run "torn" until then: what ended each, and its memory."""
    lives: list[tuple[signal.Signals, list[float]]] = []
    long = (end - time.monotonic()) / 4
    while time.monotonic() < end:
        child = _run(folder, "torn")
        # Short lives and, now and then, one that is long enough to show a leak; some
        # end while the program starts, the others after a checkpoint of their own.
        life = rng.choice([rng.uniform(0, 10), rng.uniform(3, 30)])
        if not lives or rng.random() < 0.1:
            life = min(long, 600.0)
        goal = _newest(folder / "torn") + (20 if rng.random() < 0.75 else 0)
        while goal and child.poll() is None and _newest(folder / "torn") < goal:
            time.sleep(0.2)
        lives.append((rng.choice([signal.SIGKILL, signal.SIGTERM]), []))
        _watch(child, min(life, end - time.monotonic()), lives[-1][1])
        if child.poll() is None:
            child.send_signal(lives[-1][0])
        # SIGTERM has its usual meaning until a run has begun.
        if (code := child.wait()) not in (0, -signal.SIGKILL, -signal.SIGTERM):
            raise RuntimeError(f"exit code {code}, see {folder / 'torn.log'}")
        if other.poll() is not None:
            raise RuntimeError(f"the run without harm ended: {folder / 'clean.log'}")
    return lives


def _write_images(folder: pathlib.Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for index in range(IMAGES):
        file = folder / "train" / ("odd" if index % 2 else "even") / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(file)
        if index % (IMAGES // BAD) == 7:
            file.write_bytes(file.read_bytes()[:100])


def _run(folder: pathlib.Path, name: str) -> subprocess.Popen:
    words = arguments(
        folder / name,
        steps=STEPS,
        data__source="folder",
        data__path=folder / "images",
        data__max_bad_fraction=BAD / IMAGES,
        eval__split="train",
        eval__limit=1,
        checkpoint__every=20,
        mask__fn="soak_masks:poisoned",
        mask__options={"every": 150},
    )
    places = os.pathsep.join([str(folder), os.getcwd(), *filter(None, sys.path)])
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sgmae_jax.main", *words],
            env=environment() | {"PYTHONPATH": places},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _watch(child: subprocess.Popen, seconds: float, sizes: list[float]) -> None:
    """Notes a process' memory, once a second after the warm-up, for so long."""
    begin = time.monotonic()
    while child.poll() is None:
        age = time.monotonic() - begin
        if age > seconds:
            return
        if age > WARM_UP and (size := _memory(child.pid)):
            sizes.append(size)
        time.sleep(1.0)


def _memory(process: int) -> float:
    """Resident MiB; 0 if the process has just ended."""
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmRSS")]
    return int(lines[0][1]) / 1024 if lines else 0.0


def _newest(folder: pathlib.Path) -> int:
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def main() -> int:
    """Runs a soak and prints its table; 0 if the promises hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    words = parser.parse_args()
    found = soak(words.workdir, minutes=words.minutes, seed=words.seed)
    for name, value in (
        ("steps of both runs", found.steps),
        ("steps of the clean run", found.alone),
        ("losses equal to the clean run", found.equal),
        ("void steps", found.void),
        ("kills", found.kills),
        ("signals", found.signals),
        ("seconds", round(found.seconds)),
        ("longest warm stretch, s", round(found.stretch)),
        ("memory there, MiB", " -> ".join(f"{size:.0f}" for size in found.memory)),
        ("growth", f"{found.growth:+.1%}"),
    ):
        print(f"{name:<32}{value}")
    return 0 if found.equal and abs(found.growth) <= FLAT else 1


if __name__ == "__main__":
    sys.exit(main())
