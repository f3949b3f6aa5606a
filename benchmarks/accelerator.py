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
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.accelerator_lines import (
    attempt,
    fastest,
    read,
    show,
    spread,
    table,
)
from benchmarks.accelerator_loader import loader
from benchmarks.accelerator_plan import FULL, SMALL, VARIANTS, Plan, Variant
from benchmarks.accelerator_steps import head_to_head
from benchmarks.guidance import guided_steps, solver_against_eigh
from benchmarks.measure import interleave, report
from benchmarks.memory import planned_bytes
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
