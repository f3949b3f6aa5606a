"""What MLO-MAE costs beside the MAE steps it accompanies; one JSON line a ratio.

    python -m benchmarks.outer_step [--rounds 7] [--full] [--presets recommended]

A step in which all three levels move, one in which the autoencoder moves alone, and
MAE's step on the same shapes, interleaved in one process; from these, a whole period of
`method.every` steps over as many of MAE's, beside the ratio of their FLOPs by count.
`--full` adds ViT-B/16 at 224 pixels.
"""

from __future__ import annotations

import argparse

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, build, config_of
from benchmarks.step import BASE_224, CIFAR
from sgmae_jax.methods.mlo_mae import PRESETS, set_preset

# What a period may cost as recommended.
TARGET = 2.0


def against_mae(
    preset: str, sizes: Sizes, batch: int, rounds: int, dtype: str = "float32"
) -> None:
    """One preset's period."""

    def config(**fields):
        made = config_of(sizes, batch, method="mlo_mae", dtype=dtype)
        set_preset(made, preset)
        made.method.update(fields)
        return made

    mae = config_of(sizes, batch, dtype=dtype)
    seconds = interleave(
        {
            "mae": Trainer(mae, sizes),
            "alone": Trainer(config(paths="none"), sizes),
            "outer": Trainer(config(every=1), sizes),
        },
        rounds=rounds,
    )
    every, whole = config().method.every, build(config())
    plain = build(mae)
    period = [
        (outer + (every - 1) * alone) / every
        for outer, alone in zip(seconds["outer"], seconds["alone"], strict=True)
    ]
    predicted = whole.flops(whole.phase(0, {})) / plain.flops(plain.phase(0, {}))
    report(
        f"MLO-MAE as {preset}, {every} steps / {every} MAE steps",
        period,
        seconds["mae"],
        row=9,
        target=TARGET if preset == "recommended" else None,
        flop_ratio=predicted,
        sizes=sizes._asdict(),
        batch=batch,
    )
    for name in ("alone", "outer"):
        report(f"{preset}: step, {name} / MAE step", seconds[name], seconds["mae"])


def main() -> None:
    """Runs both presets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--presets", nargs="+", default=[*PRESETS])
    options = parser.parse_args()
    for preset in options.presets:
        against_mae(preset, CIFAR, 64, options.rounds)
        if options.full:
            against_mae(preset, BASE_224, 2, options.rounds)


if __name__ == "__main__":
    main()
