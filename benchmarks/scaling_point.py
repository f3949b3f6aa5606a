"""One compiled training step on simulated devices: its memory, FLOPs and traffic.

    python -m benchmarks.scaling_point --size vit_b --devices 8 --batch 16

Prints a JSON object. Nothing is run and no state is made: the step is compiled for the
host's CPU, divided over as many devices as are asked for, and the program is read.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import time
from typing import Any, NamedTuple

MODES = ("data", "fsdp")


class Shape(NamedTuple):
    """Sizes of an encoder; the decoder is the authors' for all of them."""

    width: int
    depth: int
    heads: int
    mlp: int
    patch: int


# Dosovitskiy et al. 2021 (B, L, H); Zhai et al. 2022, table 2 (g).
SHAPES = {
    "vit_b": Shape(768, 12, 12, 3072, 16),
    "vit_l": Shape(1024, 24, 16, 4096, 16),
    "vit_h": Shape(1280, 32, 16, 5120, 14),
    "vit_g": Shape(1408, 40, 16, 6144, 14),
}


def config_of(size: str, *, batch: int, remat: str = "dots", unroll: int = 1):
    """MAE's recipe for ImageNet with another encoder.

    Args:
        size: a name in `SHAPES`.
        batch: images a step, over all devices.
        remat: see `model.remat`.
        unroll: layers written out per turn of the loop.
    """
    from sgmae_jax.config import shipped

    config = shipped("mae_vit_b_imagenet")
    shape, model = SHAPES[size], config.model
    model.preset = ""
    model.width, model.depth, model.heads = shape.width, shape.depth, shape.heads
    model.mlp_ratio, model.patch_size = shape.mlp / shape.width, shape.patch
    model.remat, model.unroll = remat, unroll
    config.data.batch_size = batch
    return config


def build(config):
    """The method, for a run of the length of the recipe."""
    from sgmae_jax import methods
    from sgmae_jax.methods.base import Run

    per_epoch = max(1_281_167 // config.data.batch_size, 1)
    run = Run(per_epoch, per_epoch * config.epochs, 1_281_167)
    return methods.load(config.method.name).build(config, run)


def shapes_of(method) -> Any:
    """The training state, as shapes."""
    import jax

    from sgmae_jax.training.state import init_state

    return jax.eval_shape(functools.partial(init_state, method), jax.random.key(0))


def parameters(tree) -> int:
    """How many numbers there are in a tree of arrays or shapes."""
    import jax

    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def kept_bytes(size: str, remat: str) -> float:
    """Bytes an image that the forward pass leaves to the backward pass, by its trace.

    No compiler has a part in it, so it holds for every platform.

    Args:
        size: a name in `SHAPES`.
        remat: see `model.remat`.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from sgmae_jax.masking import Context, example_keys, random_mask
    from sgmae_jax.methods.image import make_autoencoder

    config = config_of(size, batch=8, remat=remat)
    model, side = make_autoencoder(config), config.data.image_size
    params = jax.eval_shape(model.init, jax.random.key(0))

    def backward(params, images):
        ids = jnp.arange(len(images))
        keys = example_keys(jax.random.key(0), ids, ids, "mask")
        mask = random_mask(keys, Context(grid=model.grid), ratio=config.mask.ratio)

        def loss(params):
            embedded = model.embed(params, model.normalise(images))
            return jnp.square(model.predict(params, embedded, mask).tokens).mean()

        return jax.vjp(loss, params)[1]

    def total(count: int) -> int:
        images = jax.ShapeDtypeStruct((count, side, side, 3), np.uint8)
        leaves = jax.tree.leaves(jax.eval_shape(backward, params, images))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    return (total(16) - total(8)) / 8


def measure(args) -> dict[str, Any]:
    """Compiles and reads; see the module."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding

    from benchmarks.hlo import collectives, dot_flops
    from sgmae_jax.training.mesh import BATCH, make_mesh, placed, state_shardings
    from sgmae_jax.training.step import jitted_step

    depth = SHAPES[args.size].depth if args.unrolled else 1
    batch = args.batch * args.devices
    config = config_of(args.size, batch=batch, remat=args.remat, unroll=depth)
    config.mesh.fsdp = 1 if args.mode == "data" else args.fsdp
    mesh = make_mesh(config.mesh)
    method = build(config)
    shapes = shapes_of(method)
    shardings = state_shardings(shapes, mesh)
    side = config.data.image_size

    def rows(shape, dtype):
        place = NamedSharding(mesh, BATCH)
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=place)

    images = {
        "image": rows((side, side, 3), np.uint8),
        "label": rows((), np.int32),
        "id": rows((), np.int32),
        "epoch": rows((), np.int32),
        "view": rows((2, 2), np.float32),
    }
    state, phase = placed(shapes, shardings), method.phase(0, {})
    began = time.perf_counter()
    lowered = jitted_step(method, shardings).lower(state, {"train": images}, phase)
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    wire: dict[str, float] = {}
    for one in collectives(text):
        wire[one.kind] = wire.get(one.kind, 0.0) + one.wire
    return {
        "parameters": parameters(shapes.params),
        "argument": memory.argument_size_in_bytes,
        "state": memory.alias_size_in_bytes,
        "temp": memory.temp_size_in_bytes,
        "flops_formula": method.flops(phase) * args.batch,
        "flops_dots": dot_flops(text),
        "flops_compiler": cost["flops"],
        "bytes_compiler": cost["bytes accessed"],
        "wire": wire,
        "compile_seconds": round(seconds, 1),
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="vit_b")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--mode", choices=MODES, default="data")
    parser.add_argument("--fsdp", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16, help="images a device")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="dots")
    parser.add_argument("--unrolled", action="store_true", help="layers written out")
    return parser


if __name__ == "__main__":
    parsed = arguments().parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={parsed.devices}"
    print(json.dumps(measure(parsed)))
