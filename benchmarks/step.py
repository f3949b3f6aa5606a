"""Ratios of the training step; one JSON line each.

    python -m benchmarks.step [--rounds 7] [--full] [--parts authors bare ...]

`--full` adds ViT-Ti/16 and ViT-B/16 at 224 pixels. With the authors' repository
(facebookresearch/mae) in $MAE_REPOSITORY and torch and timm installed, their step is
timed in the same process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import optax

from benchmarks import bare
from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, config_of, random_batch
from sgmae_jax.data import ImageRows, Loader, open_source

CIFAR = Sizes()
TINY_224 = Sizes(224, 16, 192, 12, 3, 512, 8, 16)
BASE_224 = Sizes(224, 16, 768, 12, 12, 512, 8, 16)
# Steps a turn: what the other's threads still do when a turn begins is soon over.
TURN = {CIFAR: 5, TINY_224: 2, BASE_224: 1}


def bare_trainer(sizes: Sizes, batch: int, *, unrolled: bool):
    """The hand-written step as a call without arguments."""
    optimizer = optax.adamw(1e-4, b2=0.95, weight_decay=0.05)
    params = bare.init(jax.random.key(0), sizes)
    state = [params, optimizer.init(params)]
    step = bare.make_step(sizes, optimizer, unrolled=unrolled)
    images = jax.device_put(random_batch(sizes, batch)["image"])
    keys = iter(range(1_000_000))

    def call():
        state[0], state[1], loss = step(*state, images, jax.random.key(next(keys)))
        return loss

    return call


def against_bare(sizes: Sizes, batch: int, rounds: int) -> None:
    """Framework tax: our default step against the bare one, in both of its forms."""
    programs = {
        "ours": Trainer(config_of(sizes, batch), sizes),
        "scanned": bare_trainer(sizes, batch, unrolled=False),
        "unrolled": bare_trainer(sizes, batch, unrolled=True),
    }
    seconds = interleave(programs, rounds=rounds)
    for form in ("scanned", "unrolled"):
        report(
            f"our step / bare hand-written step, {form}",
            seconds["ours"],
            seconds[form],
            row=4,
            target=1.03,
            **_facts(programs["ours"], sizes, batch),
        )


def against_authors(sizes: Sizes, batch: int, rounds: int) -> None:
    """The authors' PyTorch step, plain and compiled, where their code is at hand."""
    from benchmarks.authors import authors_trainer

    for dtype in ("float32", "bfloat16"):
        programs: dict[str, Callable[[], object]] = {}
        for form, compiled in (("eager", False), ("torch.compile", True)):
            other = authors_trainer(
                sizes, batch, dtype=dtype, compiled=compiled, steps=TURN[sizes]
            )
            if isinstance(other, str):
                print(f"skipped: our step / authors' PyTorch step: {other}")
                return
            programs[form] = other
        config = config_of(sizes, batch, dtype=dtype)
        ours = Trainer(config, sizes, steps=TURN[sizes])
        programs["ours"] = ours
        seconds = interleave(programs, rounds=rounds, lead=1)
        for form in ("eager", "torch.compile"):
            report(
                f"our step / authors' PyTorch step, {form}, {dtype}",
                seconds["ours"],
                seconds[form],
                row=3,
                target=1.0,
                steps=TURN[sizes],
                **_facts(ours, sizes, batch),
            )


def _facts(ours: Trainer, sizes: Sizes, batch: int) -> dict[str, object]:
    gflop = ours.method.flops(ours.phase) * batch / 1e9
    return {"sizes": sizes._asdict(), "batch": batch, "gflop": round(gflop, 3)}


def masking_saves(sizes: Sizes, batch: int, rounds: int) -> None:
    """75 % masked against nothing masked (all but one token kept)."""
    tokens = sizes.side**2
    almost_none = sizes._replace(ratio=1.5 / tokens)
    masked = Trainer(config_of(sizes, batch), sizes)
    full = Trainer(config_of(almost_none, batch), almost_none)
    seconds = interleave({"masked": masked, "full": full}, rounds=rounds)
    counts = [one.method.flops(one.phase) for one in (masked, full)]
    report(
        "step at 75 % masking / step at 0 %",
        seconds["masked"],
        seconds["full"],
        row=1,
        target=0.5,
        flop_ratio=counts[0] / counts[1],
        sizes=sizes._asdict(),
        batch=batch,
    )


def scan_saves(sizes: Sizes, batch: int, rounds: int) -> None:
    """Scanned against unrolled layers: compile time and step time."""
    compile_seconds: dict[str, list[float]] = {"scan": [], "unrolled": []}
    unrolls = {"scan": 1, "unrolled": max(sizes.depth, sizes.decoder_depth)}
    for _ in range(5):
        for name, unroll in unrolls.items():
            jax.clear_caches()
            trainer = Trainer(config_of(sizes, batch, unroll=unroll), sizes)
            began = time.perf_counter()
            trainer.lower().compile()
            compile_seconds[name].append(time.perf_counter() - began)
    report(
        "compile time, scanned / unrolled",
        compile_seconds["scan"],
        compile_seconds["unrolled"],
        row=11,
        target=0.4,
        sizes=sizes._asdict(),
    )
    trainers = {
        name: Trainer(config_of(sizes, batch, unroll=unroll), sizes)
        for name, unroll in unrolls.items()
    }
    seconds = interleave(trainers, rounds=rounds)
    report(
        "step time, scanned / unrolled",
        seconds["scan"],
        seconds["unrolled"],
        row=11,
        target=1.05,
        sizes=sizes._asdict(),
        batch=batch,
    )


def loader_keeps_up(sizes: Sizes, batch: int, rounds: int) -> None:
    """One batch from the loader against one step: below 1 the device never waits."""
    source = open_source(
        "synthetic",
        split=f"train[:{4 * batch}]",
        image_size=(sizes.image, sizes.image),
        in_memory=True,
    )
    loader = Loader(
        source, ImageRows((sizes.image, sizes.image)), batch_size=batch, seed=0
    )
    steps = iter(range(1_000_000))
    ours = Trainer(config_of(sizes, batch), sizes)
    programs = {"load": lambda: loader.batch_at(next(steps))["id"], "step": ours}
    seconds = interleave(programs, rounds=rounds)
    report(
        "a batch from the loader (one thread) / a step",
        seconds["load"],
        seconds["step"],
        row=16,
        target=1 / 1.5,
        sizes=sizes._asdict(),
        batch=batch,
        images_per_second=round(batch / sorted(seconds["load"])[rounds // 2]),
    )


PARTS = {
    "bare": (against_bare, [(CIFAR, 64), (TINY_224, 8)]),
    "authors": (against_authors, [(CIFAR, 64), (TINY_224, 8), (BASE_224, 4)]),
    "loader": (loader_keeps_up, [(CIFAR, 64), (TINY_224, 8)]),
    "scan": (scan_saves, [(CIFAR, 8), (TINY_224, 8)]),
    "masking": (masking_saves, [(CIFAR, 64), (BASE_224, 8)]),
}


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    for part in options.parts:
        measure, shapes = PARTS[part]
        for sizes, batch in shapes if options.full else shapes[:1]:
            measure(sizes, batch, options.rounds)


if __name__ == "__main__":
    main()
