"""What teachers and learned masks cost; one JSON line a ratio.

    python -m benchmarks.methods [--rounds 7] [--full]

The step of each method against MAE's on the same shapes, all interleaved in one
process, beside the ratio of their FLOPs by count. `--full` adds ViT-B/16 at 224 pixels.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, config_of
from benchmarks.step import BASE_224, CIFAR
from sgmae_jax.config import flatten

TEACHERS = ("rc_mae", "dbot")
METHODS = (*TEACHERS, "cl_mae", "automae")
# How far from its count a step's time may lie.
WITHIN = 0.10


def trainers(sizes: Sizes, batch: int, folder: pathlib.Path) -> dict[str, Trainer]:
    """MAE's step and that of each method."""
    found = {"mae": Trainer(config_of(sizes, batch), sizes)}
    for method in METHODS:
        config = config_of(sizes, batch, method=method)
        if method == "automae":
            config.method.scorer = str(folder)
        found[method] = Trainer(config, sizes)
    return found


def against_mae(sizes: Sizes, batch: int, rounds: int) -> None:
    """One step of each, in turn."""
    with tempfile.TemporaryDirectory() as name:
        # A first stage of the same sizes; only these are read, not its weights.
        folder = pathlib.Path(name)
        (folder / "checkpoints").mkdir()
        text = json.dumps(flatten(config_of(sizes, batch)))
        (folder / "config.json").write_text(text)
        programs = trainers(sizes, batch, folder)
    seconds = interleave(programs, rounds=rounds)
    costs = {name: one.method.flops(one.phase) for name, one in programs.items()}
    for method in METHODS:
        predicted = costs[method] / costs["mae"]
        report(
            f"{method} step / MAE step",
            seconds[method],
            seconds["mae"],
            row=10 if method in TEACHERS else None,
            target=((1 - WITHIN) * predicted, (1 + WITHIN) * predicted),
            flop_ratio=predicted,
            sizes=sizes._asdict(),
            batch=batch,
        )


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    against_mae(CIFAR, 64, options.rounds)
    if options.full:
        against_mae(BASE_224, 2, options.rounds)


if __name__ == "__main__":
    main()
