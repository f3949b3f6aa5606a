"""What drawing masks costs in a step; one JSON line a ratio.

    python -m benchmarks.masks [--rounds N] [--full]

A step whose masks are drawn at random, one an example, against a step with the same
masks always (nothing drawn), and against a step that draws one mask for the batch.
`--full` adds ViT-Ti/16 and ViT-B/16 at 224 pixels.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, config_of
from benchmarks.step import BASE_224, CIFAR, TINY_224
from sgmae_jax.masking.select import select
from sgmae_jax.masking.types import Context, Mask, num_keep
from sgmae_jax.masking.uniform import random_mask


def fixed_mask(keys: jax.Array, context: Context, *, ratio: float) -> Mask:
    """The same scattered tokens in every example and every step: nothing is drawn."""
    tokens = context.num_tokens
    # Any constant order will do; multiples of an odd number modulo N are scattered.
    scores = (jnp.arange(tokens) * 7919 % tokens).astype(jnp.float32)
    scores = jnp.broadcast_to(scores, (len(keys), tokens))
    return select(scores, num_keep(tokens, ratio))


def one_mask(keys: jax.Array, context: Context, *, ratio: float) -> Mask:
    """One random mask a batch, by the first example's key."""
    mask = random_mask(keys[:1], context, ratio=ratio)
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (len(keys), *leaf.shape[1:])), mask
    )


OTHERS = {
    "random mask / fixed mask": (5, "fixed_mask", 1.01),
    "one mask an example / one a batch": (8, "one_mask", 1.03),
}


def compare(sizes: Sizes, batch: int, rounds: int, steps: int) -> None:
    """Rows 5 and 8 at one size; `steps` a round."""
    trainers = {"random": Trainer(config_of(sizes, batch), sizes, steps=steps)}
    for _, name, _ in OTHERS.values():
        config = config_of(sizes, batch)
        config.mask.fn = f"benchmarks.masks:{name}"
        trainers[name] = Trainer(config, sizes, steps=steps)
    seconds = interleave(trainers, rounds=rounds)
    for what, (row, name, target) in OTHERS.items():
        report(
            f"step, {what}",
            seconds["random"],
            seconds[name],
            target=target,
            row=row,
            steps_a_round=steps,
            sizes=sizes._asdict(),
            batch=batch,
        )


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="default: 41, of ViTs 11 and 21")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    # Targets of one per cent ask for many rounds.
    compare(CIFAR, 64, options.rounds or 41, 10)
    if options.full:
        compare(TINY_224, 8, options.rounds or 11, 2)
        compare(BASE_224, 2, options.rounds or 21, 1)


if __name__ == "__main__":
    main()
