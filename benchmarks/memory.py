"""What rematerialisation, donation and a mesh change, on a CPU; one JSON line a ratio.

    python -m benchmarks.memory [--rounds 7] [--full]

Bytes are the compiler's own plan of a program: arguments, results and temporaries,
less what results take over from arguments. The mesh of eight devices is of simulated
ones, in a process of its own. `--full` takes ViT-Ti/16 at 224 pixels.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, build, config_of, random_batch
from benchmarks.step import CIFAR, TINY_224
from sgmae_jax.training.mesh import make_mesh, put_batch, state_shardings
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import jitted_step, make_step

DEVICES = 8
# From the one that keeps least to the one that keeps all.
POLICIES = ("full", "dots", "none")


def planned_bytes(compiled: jax.stages.Compiled) -> int:
    """Bytes on a device that a program needs at most, as its compiler plans them."""
    plan: Any = compiled.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes
    return held + plan.temp_size_in_bytes - plan.alias_size_in_bytes


def remat(sizes: Sizes, batch: int, rounds: int) -> None:
    """Row 12: what is kept for the backward pass, in time and bytes."""
    trainers, needed = {}, {}
    for policy in POLICIES:
        config = config_of(sizes, batch)
        config.model.remat = policy
        trainers[policy] = Trainer(config, sizes)
        needed[policy] = planned_bytes(trainers[policy].lower().compile())
    seconds = interleave(trainers, rounds=rounds)
    for policy in POLICIES[:2]:
        report(
            f"step, remat {policy} / none",
            seconds[policy],
            seconds["none"],
            bytes_ratio=round(needed[policy] / needed["none"], 4),
            bytes=needed[policy],
            other_bytes=needed["none"],
            sizes=sizes._asdict(),
            batch=batch,
            row=12,
        )


def donation(sizes: Sizes, batch: int, rounds: int) -> None:
    """Row 15: the old state kept beside the new one, over given up."""
    config = config_of(sizes, batch)
    donating, keeping = Trainer(config, sizes), Trainer(config, sizes)
    keeping.step = jax.jit(make_step(keeping.method), static_argnums=2)
    needed = [planned_bytes(one.lower().compile()) for one in (keeping, donating)]
    seconds = interleave({"kept": keeping, "given up": donating}, rounds=rounds)
    report(
        "step, old state kept / given up",
        seconds["kept"],
        seconds["given up"],
        bytes_ratio=round(needed[0] / needed[1], 4),
        bytes=needed[0],
        other_bytes=needed[1],
        sizes=sizes._asdict(),
        batch=batch,
        row=15,
    )


def devices(sizes: Sizes, batch: int, rounds: int, steps: int = 8) -> None:
    """Row 19: the same steps on all of this process' devices and on one of them."""
    config = config_of(sizes, batch)
    method = build(config)
    start = functools.partial(init_state, method)
    whole = make_mesh(config.mesh)
    alone = jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1),
        whole.axis_names,
        axis_types=whole.axis_types,
    )
    rows = random_batch(sizes, batch)
    losses, masks, programs = {}, {}, {}
    for name, mesh in (("all", whole), ("one", alone)):
        places = state_shardings(jax.eval_shape(start, jax.random.key(0)), mesh)
        state = jax.jit(start, out_shardings=places)(jax.random.key(0))
        batches = {"train": put_batch(rows, mesh)}
        step, phase = jitted_step(method, places), method.phase(0, {})
        picture = jax.jit(method.picture, static_argnums=4)
        seen, hidden = [], []
        for index in range(steps):
            shown = picture(
                state.params,
                batches["train"],
                jax.random.wrap_key_data(state.key),
                jnp.int32(index),
                phase,
            )
            hidden.append(np.asarray(shown.hidden))
            state, metrics = step(state, batches, phase)
            seen.append(float(metrics["loss"]))
        losses[name], masks[name] = np.array(seen), np.array(hidden)
        programs[name] = _again(step, state, batches, phase)
    seconds = interleave(programs, rounds=rounds)
    report(
        f"step on {whole.size} simulated devices / on one",
        seconds["all"],
        seconds["one"],
        masks_equal=bool((masks["all"] == masks["one"]).all()),
        loss_difference=float(np.abs(losses["all"] / losses["one"] - 1).max()),
        steps=steps,
        sizes=sizes._asdict(),
        batch=batch,
        row=19,
    )


def _again(step, state, batches, phase):
    held = [state]

    def call():
        held[0], metrics = step(held[0], batches, phase)
        return metrics

    return call


def devices_apart(full: bool, rounds: int) -> None:
    """`devices`, in a process that has so many."""
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    words = ["--devices", "--rounds", str(rounds), *["--full"] * full]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *words],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=True,
    )


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--devices", action="store_true", help="row 19 alone, here")
    options = parser.parse_args()
    sizes, batch = (TINY_224, 8) if options.full else (CIFAR, 64)
    if options.devices:
        devices(sizes, batch, options.rounds)
        return
    remat(sizes, batch, options.rounds)
    donation(sizes, batch, options.rounds)
    devices_apart(options.full, options.rounds)


if __name__ == "__main__":
    main()
