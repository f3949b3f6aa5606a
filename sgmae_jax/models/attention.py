"""Attention by the library's kernels, and who attends to whom."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def by_query(key_valid: Array) -> Bool[Array, "B 1 T T"]:
    """Whether a query may attend to a key, with axes for heads and queries."""
    return key_valid if key_valid.ndim == 4 else key_valid[:, None, None, :]


def library_attention(
    qkv: Float[Array, "B T 3 H d"],
    key_valid: Bool[Array, "B T"] | Bool[Array, "1 1 T T"] | None,
    kind: Literal["xla", "cudnn"],
) -> Float[Array, "B T H d"]:
    """Softmax attention by `jax.nn.dot_product_attention`, which shows no maps."""
    batch, tokens = qkv.shape[:2]
    mask = lengths = None
    # The library differentiates cuDNN's attention over even numbers of tokens only.
    odd = tokens % 2 if kind == "cudnn" or key_valid is not None else 0
    qkv = jnp.pad(qkv, ((0, 0), (0, odd), (0, 0), (0, 0), (0, 0)))
    if key_valid is None and odd:
        lengths = jnp.full(batch, tokens, jnp.int32)
    elif key_valid is not None:
        pairs = jnp.broadcast_to(by_query(key_valid), (batch, 1, tokens, tokens))
        # No key of the padding; its queries attend to anything, so that none is empty.
        pairs = jnp.pad(pairs, ((0, 0), (0, 0), (0, 0), (0, odd)))
        mask = jnp.pad(pairs, ((0, 0), (0, 0), (0, odd), (0, 0)), mode="edge")
    query, key, value = jnp.moveaxis(qkv, 2, 0)
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        key_value_seq_lengths=lengths,
        implementation=kind,
    )
    return mixed[:, :tokens]
