"""Whole training steps on an accelerator: our variants and the authors' step."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.accelerator_lines import attempt, show, spread
from benchmarks.accelerator_plan import Case, Plan, Variant
from benchmarks.authors import authors_trainer
from benchmarks.measure import interleave, report
from benchmarks.memory import planned_bytes
from benchmarks.ours import Trainer, config_of
from sgmae_jax.analysis.flops import peak_flops


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
