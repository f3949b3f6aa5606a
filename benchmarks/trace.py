"""Where a step on a CPU spends its time: ours and the authors', by groups.

    python -m benchmarks.trace [--full] [--parts ours authors ...]

What stands in docs/performance.md as the reason of a ratio comes from here; no line is
a ratio of the table. `--full` adds ViT-Ti/16 and ViT-B/16 at 224 pixels. The authors'
step needs what `benchmarks.step` needs for it.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from benchmarks.authors import authors_trainer
from benchmarks.bare import Sizes
from benchmarks.hlo import computations, size_of
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, build, config_of
from benchmarks.overheads import LARGE, SMALL, Size, unguarded, with_step
from benchmarks.products import products
from benchmarks.step import BASE_224, CIFAR, TINY_224, TURN
from sgmae_jax.checkpointing import Checkpointer

# First match wins; the name is the operation's place in the model, or, of a fusion
# with a product in it, that product's.
_PLACES = (
    ("attention", r"/attn/(?!qkv|proj)"),
    ("dense products", r"dot_general"),
    ("GELU", r"/mlp/"),
    ("norms", r"norm"),
    ("slices of stacks", r"dynamic_(update_)?(slice|index)"),
    ("zeros of stacks", r"run_blocks/broadcast_in_dim$"),
    ("optimizer and guard", r"/cond|select_n$|is_finite$|square$"),
    ("masks", r"threefry|_uniform|sort|vmap"),
    ("residuals and biases", r"run_blocks"),
)
# The same of PyTorch's operators. What changes a tensor in place is nearly always the
# optimizer; the profile does not say on whose behalf an operator ran.
_OPERATORS = (
    ("attention", r"scaled_dot_product|softmax|bmm"),
    ("dense products", r"::(mm|addmm|.*convolution)"),
    ("GELU", r"gelu"),
    ("norms", r"layer_norm"),
    ("optimizer and guard", r"lerp|addcmul|addcdiv|sqrt|mul_$|div$|add_$|AdamW"),
    ("sums of biases", r"::sum"),
    ("copies and zeros", r"copy_|fill_|cat|zero"),
    ("masks", r"gather|scatter|sort|rand"),
)
OTHER = "other"


class Event(NamedTuple):
    """Something that a thread did: nanoseconds from `start`, `length` long."""

    name: str
    start: float
    length: float


def own_seconds(events: Iterable[Event]) -> Counter[str]:
    """Seconds of each name, without what its events spent in events inside them.

    Args:
        events: of one thread: any two lie apart or one inside the other.
    """
    spent: Counter[str] = Counter()
    around: list[Event] = []
    for event in sorted(events, key=lambda one: (one.start, -one.length)):
        while around and around[-1].start + around[-1].length <= event.start:
            around.pop()
        if around:
            spent[around[-1].name] -= event.length * 1e-9
        spent[event.name] += event.length * 1e-9
        around.append(event)
    return spent


def group_of(place: str, groups: Iterable[tuple[str, str]] = _PLACES) -> str:
    """The group of an operation by its name in the model."""
    return next((name for name, found in groups if re.search(found, place)), OTHER)


def places(text: str) -> dict[str, str]:
    """Operation -> its place in the model, for all operations of a compiled program.

    Args:
        text: of the program, `compiled.as_text()`.
    """
    bodies, _ = computations(text)
    found = {}
    for lines in bodies.values():
        for line in lines:
            name = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
            if not name:
                continue
            place = _place(line)
            called = re.search(r"calls=%?([\w.\-]+)", line)
            inside = bodies.get(called.group(1), []) if called else []
            products = [_place(one) for one in inside if " dot(" in one]
            found[name.group(1)] = products[0] if products else place
    return found


def _place(line: str) -> str:
    found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', line)
    place = found.group(1) if found else ""
    # Of a gradient's product the name says "transpose".
    return f"{place}/dot_general" if " dot(" in line else place


def trace_ours(sizes: Sizes, batch: int, dtype: str, steps: int = 5) -> dict[str, Any]:
    """Thread seconds a step by group, of our step."""
    trainer = Trainer(config_of(sizes, batch, dtype=dtype), sizes)
    where = places(trainer.lower().compile().as_text())
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        jax.block_until_ready([trainer(), trainer()])
        before, began = _used(), time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(trainer())
        wall = time.perf_counter() - began
        used = _used() - before
        with jax.profiler.trace(folder):
            for _ in range(steps):
                jax.block_until_ready(trainer())
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
    for plane in profile.planes:
        for line in plane.lines:
            events = [
                Event(one.name, one.start_ns, one.duration_ns)
                for one in line.events
                if "hlo_op" in dict(one.stats)
            ]
            for name, seconds in own_seconds(events).items():
                spent[group_of(where.get(name, ""))] += seconds
    return {
        "trace": f"our step, {dtype}",
        "wall_ms": round(1e3 * wall / steps, 1),
        "cpu_ms": round(1e3 * used.cpu / steps, 1),
        "kernel_ms": round(1e3 * used.kernel / steps, 1),
        "page_faults": round(used.faults / steps),
        "thread_ms": _milliseconds(spent, steps),
    }


class Used(NamedTuple):
    """What the process has used: seconds of all threads, in the kernel, page faults."""

    cpu: float
    kernel: float
    faults: int

    def __sub__(self, other: Used) -> Used:  # type: ignore[override]
        return Used(
            self.cpu - other.cpu,
            self.kernel - other.kernel,
            self.faults - other.faults,
        )


def _used() -> Used:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return Used(own.ru_utime + own.ru_stime, own.ru_stime, own.ru_minflt)


def _milliseconds(spent: Counter[str], steps: int) -> dict[str, float]:
    return {name: round(1e3 * one / steps, 1) for name, one in spent.most_common()}


def trace_authors(sizes: Sizes, batch: int, dtype: str, steps: int = 5):
    """Seconds of the main thread a step by group, of the authors' eager step."""
    call = authors_trainer(sizes, batch, dtype=dtype)
    if isinstance(call, str):
        return call
    from torch.profiler import ProfilerActivity, profile

    call()
    call()
    began = time.perf_counter()
    for _ in range(steps):
        call()
    wall = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        for _ in range(steps):
            call()
    spent: Counter[str] = Counter()
    for one in taken.key_averages():
        spent[group_of(one.key, _OPERATORS)] += one.self_cpu_time_total * 1e-6
    return {
        "trace": f"the authors' step, eager, {dtype}",
        "wall_ms": round(1e3 * wall / steps, 1),
        "main_thread_ms": _milliseconds(spent, steps),
    }


def traces(trace: Callable, sizes: Sizes, batch: int) -> None:
    """One line for each type of numbers."""
    for dtype in ("float32", "bfloat16"):
        found = trace(sizes, batch, dtype)
        if isinstance(found, str):
            print(f"skipped: the authors' step: {found}")
            return
        line = {**found, "sizes": sizes._asdict(), "batch": batch}
        print(json.dumps(line), flush=True)


def arms(sizes: Sizes, batch: int) -> None:
    """The authors' step as it is, without fused attention, and with fused AdamW."""
    turn = TURN[sizes]
    ways: dict[str, dict[str, bool]] = {
        "as released": {},
        "attention in parts": {"fused_attention": False},
        "fused AdamW": {"fused_optimizer": True},
    }
    programs: dict[str, Callable[[], object]] = {}
    for name, options in ways.items():
        other = authors_trainer(sizes, batch, steps=turn, **options)
        if isinstance(other, str):
            print(f"skipped: the authors' step: {other}")
            return
        programs[name] = other
    programs["ours"] = Trainer(config_of(sizes, batch), sizes, steps=turn)
    seconds = interleave(programs, rounds=7, lead=1)
    for name in ways:
        report(
            f"our step / authors' PyTorch step, eager, float32, {name}",
            seconds["ours"],
            seconds[name],
            sizes=sizes._asdict(),
            batch=batch,
        )


# Wide and shallow: its state is large beside what else a step needs.
WIDE = Sizes(224, 16, 768, 2, 12, 512, 1, 16)


def big_copies(text: str, least: int) -> list[int]:
    """Bytes of the copies of float32 that a step makes itself, of `least` or more.

    Args:
        text: of a compiled program. Copies inside a branch or a loop do not count: what
            a void step would copy is not what a step costs.
    """
    bodies, entry = computations(text)
    found = []
    for line in bodies[entry]:
        match = re.search(r" = (f32\S*) copy\(", line)
        if match and (size := size_of(match.group(1))) >= least:
            found.append(size)
    return found


def copies(name: str) -> None:
    """Copies and temporaries of a method's step, with its guard and without."""
    for guard in (True, False):
        config = config_of(WIDE, 2, method=name)
        method = build(config)
        trainer = Trainer(config, WIDE, method=method)
        if not guard:
            trainer.step = with_step(unguarded, method, trainer.shardings)
        compiled = trainer.lower().compile()
        found = big_copies(compiled.as_text(), 4_000_000)
        temporaries = compiled.memory_analysis().temp_size_in_bytes
        line = {
            "copies": name,
            "guard": guard,
            "big_copies": len(found),
            "copied_mb": round(sum(found) / 1e6, 1),
            "temporaries_mb": round(temporaries / 1e6, 1),
            "sizes": WIDE._asdict(),
        }
        print(json.dumps(line), flush=True)


def around_save(size: Size) -> None:
    """Seconds, seconds in the kernel and page faults of the steps around a save."""
    trainer = Trainer(config_of(size.sizes, size.batch), size.sizes)
    jax.block_until_ready([trainer(), trainer()])
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(folder, keep=1, log=print)
        checkpointer.save(1, trainer.state._asdict(), {"config": {}})
        checkpointer.wait()  # the first save builds what later ones use
        rows = []
        for step in range(6):
            before, began = _used(), time.perf_counter()
            saved = 0.0
            if step == 2:
                checkpointer.save(2, trainer.state._asdict(), {"config": {}})
                saved = time.perf_counter() - began
            jax.block_until_ready(trainer())
            used = _used() - before
            rows.append(
                {
                    "ms": round(1e3 * (time.perf_counter() - began)),
                    "of_which_save_call_ms": round(1e3 * saved),
                    "kernel_ms": round(1e3 * used.kernel),
                    "page_faults": used.faults,
                }
            )
        began = time.perf_counter()
        checkpointer.close()
        left = time.perf_counter() - began
    line = {
        "around_save": rows,
        "written_after_ms": round(1e3 * left),
        "sizes": size.sizes._asdict(),
        "batch": size.batch,
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    """Prints all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    for part in options.parts:
        look, shapes = PARTS[part]
        for shape in shapes if options.full else shapes[:1]:
            look(*shape)


_STEPS: list[tuple] = [(CIFAR, 64), (TINY_224, 8), (BASE_224, 4)]
PARTS: dict[str, tuple[Callable[..., None], list[tuple]]] = {
    "ours": (functools.partial(traces, trace_ours), _STEPS),
    "authors": (functools.partial(traces, trace_authors), _STEPS),
    "arms": (arms, _STEPS),
    "products": (products, _STEPS),
    "copies": (copies, [("mae",), ("rc_mae",)]),
    "save": (around_save, [(SMALL,), (LARGE,)]),
}


if __name__ == "__main__":
    main()
