"""All that is worth knowing of an accelerator, in parts; one JSON line a number.

    python -m benchmarks.accelerator --part step [--small] [--lines FILE]
    python -m benchmarks.accelerator --table FILE

`benchmarks/accelerator.sh` runs all parts in order, within minutes, and gathers their
lines in a file, which `--table` makes Markdown of; parts look into it, where it is
named, for what earlier ones have found. Every line is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator_lines import (
    attempt,
    fastest,
    read,
    show,
    spread,
    table,
)
from benchmarks.accelerator_plan import FULL, SMALL, VARIANTS, Case, Plan, Variant
from benchmarks.authors import authors_trainer
from benchmarks.guidance import guided_steps, solver_against_eigh
from benchmarks.measure import interleave, report
from benchmarks.memory import planned_bytes
from benchmarks.ours import Trainer, config_of
from sgmae_jax.analysis.flops import peak_flops
from sgmae_jax.models.attention import library_attention
from sgmae_jax.models.layers import matmul_attention

ATTENTION = ("matmul", "xla", "cudnn")


def environment(plan: Plan, lines: pathlib.Path | None) -> None:
    """What all of it ran on, and how fast this device multiplies matrices."""
    del lines
    versions = {}
    for package in ("jax", "jaxlib", "jax-cuda13-plugin", "libtpu", "torch", "timm"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    kind = jax.devices()[0].device_kind
    peak = peak_flops(kind)
    show(
        {
            "run": "small" if plan is SMALL else "full",
            "device": kind,
            "devices": jax.device_count(),
            "cores": os.cpu_count(),
            "sheet_tflops": peak and peak / 1e12,
            "versions": versions,
        }
    )
    for dtype in ("bfloat16", "float32"):
        _matmul(plan, dtype)


def _matmul(plan: Plan, dtype: str, products: int = 20) -> None:
    """Square products one after the other, in one program."""
    side = plan.matmul
    keys = jax.random.split(jax.random.key(0))
    # Scaled, so that products of products stay where they began.
    left, right = (
        (jax.random.normal(key, (side, side)) * scale).astype(dtype)
        for key, scale in zip(keys, (1.0, side**-0.5), strict=True)
    )

    @jax.jit
    def chain(x, y):
        return jax.lax.scan(lambda x, _: (x @ y, None), x, length=products)[0]

    seconds = interleave({"": lambda: chain(left, right)}, rounds=plan.rounds)[""]
    flops = 2 * products * side**3
    show(
        {
            "matmul": dtype,
            "side": side,
            "tflops": flops / sorted(seconds)[len(seconds) // 2] / 1e12,
            **spread(seconds),
        }
    )


class _Ours:
    """Our step for one case and variant, compiled and run, with what it took.

    Attributes:
        call: makes the plan's number of steps.
        facts: compile_s; planned_bytes, by the compiler; peak_bytes, what the
            device's allocator had to add for it, where it counts and this is more
            than anything before.
        gflop: of an image.
    """

    def __init__(self, plan: Plan, case: Case, variant: Variant):
        config = config_of(case.sizes, case.batch, dtype=variant.dtype)
        config.model.remat = variant.remat
        config.model.attention = variant.attention
        before = _memory("bytes_in_use"), _memory("peak_bytes_in_use")
        trainer = Trainer(config, case.sizes, steps=plan.steps)
        began = time.perf_counter()
        program = trainer.lower().compile()
        self.facts: dict[str, Any] = {
            "compile_s": round(time.perf_counter() - began, 1),
            "planned_bytes": planned_bytes(program),
        }
        # What has been compiled here is what runs: jit would compile it again.
        trainer.step = lambda state, batches, phase: program(state, batches)
        jax.block_until_ready(trainer())
        peak = _memory("peak_bytes_in_use")
        if peak > before[1]:
            self.facts["peak_bytes"] = peak - before[0]
        self.call = trainer
        self.gflop = trainer.method.flops(trainer.phase) / 1e9


def _memory(name: str) -> int:
    return (jax.devices()[0].memory_stats() or {}).get(name, 0)


def head_to_head(
    plan: Plan, case: Case, variants: tuple[Variant, ...], forms: tuple[str, ...]
) -> None:
    """Our variants and the authors' step, interleaved.

    Args:
        plan: how many rounds, and steps a call.
        case: sizes and batch.
        variants: of ours.
        forms: of theirs, "eager" and "compiled", timed one after the other, each in
            turn with ours: compiling takes long, and should time run out, the lines
            before are there.
    """
    built = {
        variant.name: attempt(
            {"program": variant.name, "size": case.name, "batch": case.batch},
            functools.partial(_Ours, plan, case, variant),
        )
        for variant in variants
    }
    ours = {name: one for name, one in built.items() if one is not None}
    if not ours:
        return
    gflop = next(iter(ours.values())).gflop
    told: set[str] = set()

    def measure(others: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        calls = {name: one.call for name, one in ours.items()} | others
        seconds = interleave(calls, rounds=plan.rounds, warmup=1)
        for name in calls:
            if name not in told:
                facts = ours[name].facts if name in ours else {}
                _show_program(plan, case, name, seconds[name], gflop, facts)
                told.add(name)
        return seconds

    if not forms:
        measure({})
    for form in forms:
        name = f"authors, {variants[0].dtype}, {form}"
        theirs = attempt(
            {"program": name, "size": case.name, "batch": case.batch},
            functools.partial(_authors, plan, case, variants[0].dtype, form),
        )
        if theirs is None:
            if not told:
                measure({})
            continue
        seconds = measure({name: theirs})
        for own in ours:
            report(
                f"{own} / {name}",
                seconds[own],
                seconds[name],
                target=1.0,
                size=case.name,
                batch=case.batch,
            )


def _authors(plan: Plan, case: Case, dtype: str, form: str) -> Callable[[], object]:
    platform = jax.default_backend()
    if platform == "tpu":
        raise ValueError("no TPU for torch")
    call = authors_trainer(
        case.sizes,
        case.batch,
        dtype=dtype,
        compiled=form == "compiled",
        device="cuda" if platform == "gpu" else "cpu",
        steps=plan.steps,
    )
    if isinstance(call, str):
        raise ValueError(call)
    call()
    return call


def _show_program(plan, case, name, seconds, gflop, facts) -> None:
    a_step = [one / plan.steps for one in seconds]
    median = sorted(a_step)[len(a_step) // 2]
    rate = case.batch / median
    peak = peak_flops(jax.devices()[0].device_kind)
    show(
        {
            "program": name,
            "size": case.name,
            "batch": case.batch,
            "images_per_second": round(rate, 1),
            "gflop_per_image": round(gflop, 3),
            "tflops": rate * gflop / 1e3,
            "mfu": peak and rate * gflop * 1e9 / peak,
            **spread(a_step),
            **facts,
        }
    )


def step(plan: Plan, lines: pathlib.Path | None) -> None:
    """The main case: ours as it comes and tuned, the authors' eager and compiled."""
    del lines
    head_to_head(plan, plan.main, VARIANTS, ("eager", "compiled"))


def sizes(plan: Plan, lines: pathlib.Path | None) -> None:
    """Other sizes and batches, by the variant of ours that was fastest so far."""
    name = fastest(read(lines)) if lines else None
    variant = next((one for one in VARIANTS if one.name == name), VARIANTS[0])
    for case in plan.others:
        head_to_head(plan, case, (variant,), ("eager",))
    for case in plan.others:
        if case.compiled:
            head_to_head(plan, case, (variant,), ("compiled",))


def variants(plan: Plan, lines: pathlib.Path | None) -> None:
    """Remat, attention and dtype of our main step; the least memory first."""
    del lines
    order = (
        Variant(remat="full"),
        Variant(remat="dots"),
        Variant(remat="none"),
        Variant(attention="xla"),
        Variant(attention="cudnn"),
        Variant(dtype="float32"),
    )
    head_to_head(plan, plan.main, order, ())


def attention(plan: Plan, lines: pathlib.Path | None) -> None:
    """Attention alone, forward and backward, by number of tokens."""
    del lines
    for batch, tokens, heads, width in plan.attention:
        shape = (batch, tokens, 3, heads, width)
        qkv = jax.random.normal(jax.random.key(0), shape, jnp.bfloat16)
        place = {"tokens": tokens, "heads": heads, "head_width": width, "batch": batch}
        found = {
            kind: attempt(
                {"attention": kind, **place},
                functools.partial(_attention, kind, qkv, plan.steps),
            )
            for kind in ATTENTION
        }
        calls = {kind: call for kind, call in found.items() if call is not None}
        seconds = interleave(calls, rounds=plan.rounds, warmup=1)
        for kind, each in seconds.items():
            a_call = [one / plan.steps for one in each]
            show({"attention": kind, **place, **spread(a_call)})


def _attention(kind: str, qkv: jax.Array, steps: int) -> Callable[[], object]:
    def total(qkv):
        if kind == "matmul":
            mixed = matmul_attention(qkv, None)[0]
        else:
            mixed = library_attention(qkv, None, kind)  # type: ignore[arg-type]
        return jnp.square(mixed.astype(jnp.float32)).sum()

    gradient = jax.jit(jax.grad(total))

    def call():
        for _ in range(steps):
            out = gradient(qkv)
        return out

    jax.block_until_ready(call())
    return call


def guided(plan: Plan, lines: pathlib.Path | None) -> None:
    """Self-guided steps over random ones, in each way to refresh."""
    del lines
    case = plan.main
    guided_steps(
        case.sizes, case.batch, plan.rounds, dtype="bfloat16", repeats=plan.steps
    )


def eigen(plan: Plan, lines: pathlib.Path | None) -> None:
    """Batched eigen-solvers."""
    del lines
    for batch in plan.graphs:
        for iterations in (24, 48):
            solver_against_eigh(batch, iterations, plan.rounds)


def solvers(plan: Plan, lines: pathlib.Path | None) -> None:
    """Hypergradients by different solvers, over one step of MAE on as many images."""
    del lines
    from benchmarks.hypergradient import Problem, compile_solver, compile_unit

    problem = Problem(plan.levels)
    at = problem.begin()
    unit = compile_unit(problem, at)
    bytes_of_unit = planned_bytes(unit)
    for name in plan.solvers:
        found = attempt(
            {"solver": name}, functools.partial(compile_solver, problem, at, name)
        )
        if found is None:
            continue
        compiled, state = found
        seconds = interleave(
            {
                "unit": functools.partial(unit, at),
                "solver": functools.partial(compiled, at, state),
            },
            rounds=plan.rounds,
            warmup=1,
        )
        report(
            f"hypergradient, {name} / MAE step",
            seconds["solver"],
            seconds["unit"],
            bytes_ratio=round(planned_bytes(compiled) / bytes_of_unit, 4),
            width=plan.levels.width,
            depth=plan.levels.depth,
        )


def outer(plan: Plan, lines: pathlib.Path | None) -> None:
    """Steps of MLO-MAE over MAE's."""
    del lines
    from benchmarks.outer_step import against_mae

    sizes, batch = plan.outer
    against_mae("recommended", sizes, batch, plan.rounds, dtype="bfloat16")


def loader(plan: Plan, lines: pathlib.Path | None) -> None:
    """Images a second from JPEGs and from memory, by threads, and onto the device."""
    del lines
    from sgmae_jax.data import ImageRows, Loader, open_source

    side, batch = plan.main.sizes.image, plan.loader
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        _write_images(pathlib.Path(folder), batch)
        memory = open_source(
            "synthetic",
            split=f"train[:{batch}]",
            image_size=(side, side),
            in_memory=True,
        )
        for what, source in (
            ("in memory", memory),
            ("JPEG, 500x375", open_source("folder", path=folder)),
        ):
            for threads in sorted({1, max(cores // 2, 1), cores}):
                made = Loader(
                    source,
                    ImageRows((side, side)),
                    batch_size=batch,
                    seed=0,
                    threads=threads,
                )
                batches = made.iterate()
                seconds = interleave(
                    {"": lambda batches=batches: next(batches)[1]["id"]},
                    rounds=plan.rounds,
                    # Batches made ahead must be used up before it counts.
                    warmup=3,
                )[""]
                rows = next(batches)[1]
                batches.close()
                rate = batch * len(seconds) / sum(seconds)
                line = {"loader": what, "threads": threads, "batch": batch}
                show(line | {"images_per_second": round(rate), **spread(seconds)})
    images = rows["image"]
    seconds = interleave({"": lambda: jax.device_put(images)}, rounds=plan.rounds)[""]
    rate = batch * len(seconds) / sum(seconds)
    line = {"loader": "to the device, uint8", "threads": 1, "batch": batch}
    show(line | {"images_per_second": round(rate), **spread(seconds)})


def _write_images(folder: pathlib.Path, count: int) -> None:
    """JPEGs of the usual size whose detail is neither flat nor noise."""
    from PIL import Image

    draw = np.random.default_rng(0)
    (folder / "train" / "one").mkdir(parents=True)
    for index in range(count):
        coarse = draw.integers(0, 256, (47, 63, 3), np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(folder / "train" / "one" / f"{index:05}.jpg", quality=90)


PARTS = {
    one.__name__: one
    for one in (
        *(environment, step, sizes, attention, variants),
        *(guided, eigen, solvers, loader, outer),
    )
}


def main() -> None:
    """Runs one part, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--small", action="store_true", help="sizes for a try on a CPU")
    parser.add_argument("--lines", type=pathlib.Path, help="those of this run so far")
    parser.add_argument("--table", type=pathlib.Path, help="lines to make a table of")
    options = parser.parse_args()
    if options.table:
        print(table(read(options.table)))
    elif options.part:
        PARTS[options.part](SMALL if options.small else FULL, options.lines)
    else:
        parser.error("--part or --table is needed")


if __name__ == "__main__":
    main()
