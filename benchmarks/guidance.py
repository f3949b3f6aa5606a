"""What guidance costs; one JSON line a ratio.

    python -m benchmarks.guidance [--rounds 7] [--full] [--run DIRECTORY]

The eigen-solver against batched dense `eigh`, and guided steps against the step with
random masks on the same shapes, all interleaved in one process. `--full` adds ViT-Ti/16
and ViT-B/16 at 224 pixels. With a run directory, the solver is also compared with
float64 on the features of that run's newest checkpoint.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report
from benchmarks.ours import Trainer, config_of
from benchmarks.step import BASE_224, CIFAR, TINY_224
from sgmae_jax.masking import (
    cosine_relations,
    normalised_cut,
    normalised_cut_dense,
)
from sgmae_jax.masking.relations import edge_weights

# Steps a call makes: one whole cycle of each way to refresh.
WAYS = {
    "every step": ("step", 1),
    "every 4 steps": ("interval", 4),
    "bank": ("bank", 1),
}
TARGETS = {"every step": 1.10, "every 4 steps": 1.10, "bank": 1.05}


def solver_against_eigh(batch: int, steps: int, rounds: int) -> None:
    """Cuts of so many graphs of 14x14 tokens."""
    features = jax.random.normal(jax.random.key(0), (batch, 196, 64))
    weights = jax.jit(lambda x: edge_weights(cosine_relations(x)))(features)
    lanczos = jax.jit(lambda w: normalised_cut(w, steps=steps))
    dense = jax.jit(normalised_cut_dense)

    @jax.jit
    def chunks(weights):
        parts = weights.reshape(-1, min(16, batch), *weights.shape[1:])
        return jax.lax.map(lambda part: normalised_cut(part, steps=steps), parts)

    @jax.jit
    def products(weights):
        def turn(_, q):
            return jnp.einsum("bnm,bm->bn", weights, q, precision="highest")

        return jax.lax.fori_loop(0, steps, turn, weights[:, 0])

    ways = {"lanczos": lanczos, "eigh": dense, "chunks": chunks, "products": products}
    seconds = interleave(
        {name: functools.partial(way, weights) for name, way in ways.items()},
        rounds=rounds,
        warmup=1,
    )
    facts = {"batch": batch, "tokens": 196, "steps": steps}
    what = "normalised cut: Lanczos / dense eigh"
    report(what, seconds["lanczos"], seconds["eigh"], row=7, target=0.1, **facts)
    for name, said in (
        ("chunks", "normalised cut in chunks of 16 / dense eigh"),
        ("products", "the products of the cut alone / dense eigh"),
    ):
        report(said, seconds[name], seconds["eigh"], **facts)


def agreement(run: pathlib.Path, images: int = 128) -> None:
    """Signs of the second eigenvector on real features, against float64."""
    from sgmae_jax.analysis.samples import load_samples
    from sgmae_jax.config import config_of_run, pair
    from sgmae_jax.domains.images import open_source as open_config_source
    from sgmae_jax.methods.image import make_autoencoder
    from sgmae_jax.tasks import restore_run
    from sgmae_jax.training.console import Console

    asked = config_of_run("analyze", str(run))
    step, config, _, params, _ = restore_run(asked, run, Console())
    model = make_autoencoder(config)
    source = open_config_source(config, config.eval.split, in_memory=False)
    samples = load_samples(
        source,
        count=images,
        image_size=pair(config.data.image_size),
        crop=config.eval.crop,
        patch_size=model.patch_size,
        log=print,
    )
    for layer in range(1, 1 + model.encoder.depth):
        found = model.layer(params["model"], samples.images, layer)
        weights = edge_weights(cosine_relations(found.features[:, 1:]))
        exact = np.asarray(weights, np.float64)
        scale = exact.sum(-1) ** -0.5
        matrix = exact * scale[:, :, None] * scale[:, None, :]
        values, vectors = np.linalg.eigh(matrix)
        wanted = vectors[..., -2] > 0
        for steps in (24, 48):
            cut = normalised_cut(weights, steps=steps)
            same = ((np.asarray(cut.vector) > 0) == wanted).mean(-1)
            same = np.maximum(same, 1 - same)
            line = {
                "agreement": f"layer {layer}, step {step}, {config.method.name}",
                "steps": steps,
                "mean": round(float(same.mean()), 5),
                "worst": round(float(same.min()), 5),
                "residual": float(cut.residual.max()),
                "smallest gap": float((values[:, -2] - values[:, -3]).min()),
                "images": len(samples.images),
            }
            print(json.dumps(line), flush=True)


def guided_steps(
    sizes: Sizes,
    batch: int,
    rounds: int,
    *,
    dtype: str = "float32",
    repeats: int = 1,
) -> None:
    """The guided step in its three ways against the random one; each in its cycle.

    Args:
        sizes: of the model.
        batch: images a step.
        rounds: of timings.
        dtype: of compute.
        repeats: cycles a timing waits for at once.
    """
    for name, (refresh, cycle) in WAYS.items():
        config = config_of(sizes, batch, method="self_guided", dtype=dtype)
        config.method.begin_epoch = 0
        config.method.refresh = refresh
        config.method.refresh_steps = max(cycle, 2)
        steps = cycle * repeats
        plain = Trainer(config_of(sizes, batch, dtype=dtype), sizes, steps=steps)
        guided = Trainer(config, sizes, steps=steps)
        seconds = interleave({"guided": guided, "random": plain}, rounds=rounds)
        counts = [one.method.flops(one.phases[0]) for one in (guided, plain)]
        predicted = counts[0] / counts[1]
        report(
            f"guided step, {name} / random step",
            seconds["guided"],
            seconds["random"],
            row=6,
            target=round(TARGETS[name] * predicted, 4),
            flop_ratio=predicted,
            sizes=sizes._asdict(),
            batch=batch,
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--run", type=pathlib.Path)
    args = parser.parse_args()
    if args.run:
        agreement(args.run)
    for batch in (64, 256) if args.full else (64,):
        for steps in (24, 48):
            solver_against_eigh(batch, steps, 5)
    guided_steps(CIFAR, 64, args.rounds)
    if args.full:
        guided_steps(TINY_224, 8, args.rounds)
        guided_steps(BASE_224, 4, args.rounds)


if __name__ == "__main__":
    main()
