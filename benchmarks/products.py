"""The products of dense layers by themselves, beside PyTorch's."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bare import Sizes
from benchmarks.measure import interleave, report


def products(sizes: Sizes, batch: int) -> None:
    """The dense layers' products alone, forward and both derivatives, ours / PyTorch's.

    Of one block of the encoder and one of the decoder, each as often as the model has
    it: nothing between the products, nothing fused into them. In bfloat16 also with
    results asked for in float32 and rounded afterwards.
    """
    try:
        import torch
    except ImportError:
        print("skipped: products: torch is not installed")
        return
    shapes: list[tuple[int, int, int]] = []
    for tokens, width, depth in (
        (sizes.kept + 1, sizes.width, sizes.depth),
        (sizes.side**2 + 1, sizes.decoder_width, sizes.decoder_depth),
    ):
        rows = batch * tokens
        layers = ((1, 3), (1, 1), (1, 4), (4, 1))
        shapes += depth * [(rows, width * a, width * b) for a, b in layers]
    flops = sum(6 * math.prod(shape) for shape in shapes)

    def three(x, weights, gradient):
        return x @ weights, gradient @ weights.T, x.T @ gradient

    def wide(x, weights, gradient):
        def product(a, b, axes):
            found = jax.lax.dot_general(
                a, b, (axes, ((), ())), preferred_element_type=jnp.float32
            )
            return found.astype(a.dtype)

        return (
            product(x, weights, ((1,), (0,))),
            product(gradient, weights, ((1,), (1,))),
            product(x, gradient, ((0,), (0,))),
        )

    rng = np.random.default_rng(0)
    sides = {
        shape: [
            rng.standard_normal(dims, np.float32)
            for dims in (shape[:2], shape[1:], shape[::2])
        ]
        for shape in set(shapes)
    }
    for dtype in ("float32", "bfloat16"):
        ours = {
            shape: [jnp.asarray(one, dtype) for one in found]
            for shape, found in sides.items()
        }
        theirs = {
            shape: [torch.from_numpy(one).to(getattr(torch, dtype)) for one in found]
            for shape, found in sides.items()
        }

        def all_ours(compiled, operands=ours):
            for shape in shapes:
                jax.block_until_ready(compiled(*operands[shape]))

        def all_theirs(operands=theirs):
            for shape in shapes:
                three(*operands[shape])

        ways = {"": functools.partial(all_ours, jax.jit(three))}
        if dtype == "bfloat16":
            ways[", results in float32"] = functools.partial(all_ours, jax.jit(wide))
        seconds = interleave({**ways, "theirs": all_theirs}, rounds=9)
        for way in ways:
            report(
                f"dense products alone / PyTorch's, {dtype}{way}",
                seconds[way],
                seconds["theirs"],
                gflop=round(flops / 1e9, 1),
                sizes=sizes._asdict(),
                batch=batch,
            )
