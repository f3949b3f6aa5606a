"""What metrics, writer, guard, EMA and checkpoints add to training.

    python -m benchmarks.overheads [--rounds N] [--full]

A round is a window of steps through the parts of the training loop: the jitted step,
`Progress`, `MetricWriter` and the console. In each comparison one of them is off, both
sides are interleaved in one process. What the program has no switch for is left out
here: the step without its guard is `unguarded`, the EMA is RC-MAE's teacher left as it
is. `--full` adds ViT-B/16 at 224 pixels, batch 2.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import statistics
import tempfile
import time
import types
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, build, config_of, random_batch
from benchmarks.step import BASE_224, CIFAR
from sgmae_jax.checkpointing import Checkpointer
from sgmae_jax.domains import images as domain
from sgmae_jax.methods.base import Method, Run
from sgmae_jax.optimizer import learning_rate
from sgmae_jax.training import step as training_step
from sgmae_jax.training.console import Console
from sgmae_jax.training.guard import SkipBudget
from sgmae_jax.training.mesh import make_mesh
from sgmae_jax.training.progress import Progress
from sgmae_jax.training.state import TrainState
from sgmae_jax.training.step import jitted_step
from sgmae_jax.training.writers import MetricWriter, NoWriter

TARGET = 1.02
STALL = 2.0
_AHEAD = 2  # as in the training loop


class Size(NamedTuple):
    """What is measured on: sizes, images a step, steps a window and round a save."""

    sizes: Sizes
    batch: int
    window: int
    around_save: int


SMALL = Size(CIFAR, 64, 20, 40)
LARGE = Size(BASE_224, 2, 2, 6)


def unguarded(method: Method, *, accumulate: int = 1) -> Callable:
    """`make_step` for one update, without the test for what is not finite."""
    (update,) = method.updates
    if accumulate != 1:
        raise ValueError(f"accumulate must be 1, got {accumulate}")

    def step_fn(state: TrainState, batches, phase):
        key = jax.random.wrap_key_data(state.key)
        params = dict(state.params)
        params, batches, noted = method.prepare(params, batches, key, state.step, phase)
        grads, own = update.gradient(params, batches, key, state.step, phase)
        owned = {name: params[name] for name in update.owns}
        change, opt = update.optimizer.update(grads, state.opt[0], owned)
        params = {**params, **optax.apply_updates(owned, change)}
        params = {**params, **method.post_update(params, state.step + 1)}
        own |= {"grad_norm": optax.tree.norm(grads), "lr": learning_rate(opt)}
        metrics = {**noted, **own, "skipped": jnp.int32(0)}
        state = state._replace(step=state.step + 1, params=params, opt=(opt,))
        return state, metrics

    return step_fn


class _NoLoader:
    """Stands for the loader: the batch is on the device from the start."""

    wait_seconds = 0.0
    bad = types.SimpleNamespace(count=0, names=())

    def check_share(self, count: int) -> None:
        """Nothing was bad."""


class Training:
    """A window of training as the loop does it, each call.

    Args:
        size: of the network, the batch and the window.
        folder: of its metrics.
        name: of the method.
        metrics: whether they are computed, collected, shown and written.
        waits: whether the host stays `_AHEAD` steps in front, as the loop does; without
            metrics only.
        writer: whether they are written; TensorBoard's events included.
        guard: whether the step is guarded.
        average: whether the method's `post_update` runs.
    """

    def __init__(
        self,
        size: Size,
        folder: pathlib.Path,
        *,
        name: str = "mae",
        metrics: bool = True,
        waits: bool = True,
        writer: bool = True,
        guard: bool = True,
        average: bool = True,
    ):
        config = config_of(size.sizes, size.batch, method=name)
        method = build(config)
        if not average:
            method = method._replace(post_update=lambda params, step: {})
        self._trainer = Trainer(config, size.sizes, method=method)
        if not guard:
            self._trainer.step = with_step(unguarded, method, self._trainer.shardings)
        self._window, self._done, self._metrics = size.window, 0, metrics
        self._waits = waits
        if not metrics:
            self._trainer.step = _without_metrics(method, self._trainer.shardings)
            return
        folder.mkdir()
        written = (
            MetricWriter(folder, start_step=0, tensorboard=True)
            if writer
            else NoWriter()
        )
        self._progress = Progress(
            config,
            Run(1000, 1_000_000, 50_000),
            domain,
            method,
            make_mesh(config.mesh),
            {"train": _NoLoader()},
            written,
            Console(io.StringIO()),
            SkipBudget(budget=10, window=1000, folder=None),
        )
        self._progress.begin(0)
        self._rows = {"train": random_batch(size.sizes, size.batch)}

    def __call__(self) -> object:
        """`window` steps; returns the last one's metrics."""
        losses: list = []
        for _ in range(self._window):
            found = self._trainer()
            self._done += 1
            losses.append(found["loss"])
            if self._metrics:
                self._progress.add(self._done, found, self._rows, ahead=_AHEAD)
            elif self._waits and len(losses) > _AHEAD:
                jax.block_until_ready(losses[-1 - _AHEAD])
        if self._metrics:
            self._progress.flush(self._done, self._trainer.phase)
        return found


def with_step(make: Callable, method: Method, shardings: TrainState):
    """`jitted_step` around another step than the program's."""
    usual = training_step.make_step
    training_step.make_step = make
    try:
        return jitted_step(method, shardings)
    finally:
        training_step.make_step = usual


def _without_metrics(method: Method, shardings: TrainState):
    """The guarded step, of whose metrics only the loss leaves the device."""

    def make(method: Method, *, accumulate: int = 1):
        step_fn = training_step_of(method, accumulate=accumulate)

        def alone(state, batches, phase):
            state, metrics = step_fn(state, batches, phase)
            return state, {"loss": metrics["loss"]}

        return alone

    training_step_of = training_step.make_step
    return with_step(make, method, shardings)


# What is switched off in each comparison, and the method it is measured on.
SWITCHES = {"metrics": "mae", "writer": "mae", "guard": "mae", "average": "rc_mae"}


def switched_off(size: Size, rounds: int) -> None:
    """Row 17: each part on, over the same with it alone off.

    A third side that never waits for the device tells what the waiting is worth.
    """
    for part, name in SWITCHES.items():
        ways: dict[str, dict[str, bool]] = {"on": {}, "off": {part: False}}
        if part == "metrics":
            ways["never waits"] = {part: False, "waits": False}
        with tempfile.TemporaryDirectory() as folder:
            sides = {
                side: Training(size, pathlib.Path(folder, side), name=name, **options)
                for side, options in ways.items()
            }
            seconds = interleave(sides, rounds=rounds, warmup=2)
        facts = {
            "row": 17,
            "method": name,
            "steps_a_round": size.window,
            "sizes": size.sizes._asdict(),
            "batch": size.batch,
        }
        what = f"training with / without: {part}"
        report(what, seconds["on"], seconds["off"], target=TARGET, **facts)
        if "never waits" in sides:
            report(
                "without metrics, waiting two steps behind / never",
                seconds["off"],
                seconds["never waits"],
                **facts,
            )


def steps_around(
    trainer: Trainer, steps: int, save: Callable[[], None] | None
) -> list[float]:
    """Seconds between the ends of steps; `save` comes after the second of them.

    Args:
        trainer: makes one step a call.
        steps: how many are timed.
        save: what the loop would call, or None.
    """
    pending: list = []
    seconds = []
    before = time.perf_counter()
    for step in range(steps):
        pending.append(trainer())
        if len(pending) > _AHEAD:
            jax.block_until_ready(pending.pop(0))
        if save and step == 1:
            save()
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
    jax.block_until_ready(pending)
    return seconds


def saves(size: Size, rounds: int) -> None:
    """Row 18: the longest step of a window with a save in it, over the median step."""
    trainer = Trainer(config_of(size.sizes, size.batch), size.sizes)
    jax.block_until_ready(trainer())
    longest: dict[str, list[float]] = {"none": [], "async": [], "sync": []}
    # The median step is that without a save: during one, all steps may be slower.
    middle: list[float] = []
    size_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.state))
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(folder, keep=1, log=print)
        number = 0

        def begin() -> None:
            nonlocal number
            number += 1
            checkpointer.save(number, trainer.state._asdict(), {"config": {}})

        def begin_and_wait() -> None:
            begin()
            checkpointer.wait()

        ways = {"none": None, "async": begin, "sync": begin_and_wait}
        begin_and_wait()  # the first save builds what later ones use
        for _ in range(rounds):
            for name, save in ways.items():
                seconds = steps_around(trainer, size.around_save, save)
                checkpointer.wait()
                longest[name].append(max(seconds[1:]))
                if save is None:
                    middle.append(statistics.median(seconds[2:]))
        checkpointer.close()
    for name, target in (("none", None), ("async", STALL), ("sync", None)):
        report(
            f"longest step / median step, save: {name}",
            longest[name],
            middle,
            target=target,
            row=18,
            state_mb=round(size_bytes / 1e6, 1),
            sizes=size.sizes._asdict(),
            batch=size.batch,
        )


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="default: 25, of ViT-B 5")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    for size, usual in ((SMALL, 25), (LARGE, 5))[: 1 + options.full]:
        switched_off(size, options.rounds or usual)
        saves(size, options.rounds or usual)


if __name__ == "__main__":
    main()
