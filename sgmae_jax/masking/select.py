"""From scores to a mask: the one path that every generator takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from sgmae_jax.masking.types import Mask

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Int, Shaped


def select(
    scores: Shaped[Array, "B N"],
    num_keep: int,
    *,
    count: Int[Array, " B"] | None = None,
) -> Mask:
    """Keep the tokens with the lowest scores, hide all others.

    The sort is stable, so equal scores keep the lower index. NaN sorts after every
    number: such a token is hidden first, and the result is a permutation even where
    all scores are NaN. No gradient flows into the scores: what a mask holds are ranks.

    Args:
        scores: real numbers, any range and dtype.
        num_keep: K, slots of the encoder, in [0, N]; static.
        count: kept tokens of each example where these vary; clipped to [0, K]. The
            slots after the first `count` are padding (`keep_valid` is False there).

    Returns:
        Mask with `ids_keep` in ascending order of score, `ids_restore` the rank of
        each token, `loss_weight` = `hidden` and `gate` = 1.

    Raises:
        ValueError: scores without two axes, or num_keep out of range.

    Reference: `random_masking` in facebookresearch/mae, for scores = its noise.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must have axes (B, N), got shape {scores.shape}")
    num_tokens = scores.shape[1]
    if not 0 <= num_keep <= num_tokens:
        raise ValueError(f"num_keep must be in [0, N = {num_tokens}], got {num_keep}")
    order = jnp.argsort(jax.lax.stop_gradient(scores), axis=-1, stable=True)
    order = order.astype(jnp.int32)
    rank = inverse(order)
    kept, keep_valid = jnp.int32(num_keep), None
    if count is not None:
        kept = jnp.clip(count, 0, num_keep)[:, None]
        keep_valid = jnp.arange(num_keep) < kept
    hidden = (rank >= kept).astype(jnp.float32)
    return Mask(
        ids_keep=order[:, :num_keep],
        ids_restore=rank,
        hidden=hidden,
        loss_weight=hidden,
        gate=jnp.ones_like(hidden),
        keep_valid=keep_valid,
    )


def inverse(order: Int[Array, "B N"]) -> Int[Array, "B N"]:
    """The inverse permutations; a scatter, half the price of sorting again."""
    places = jnp.arange(order.shape[1], dtype=order.dtype)

    def one(row: Array) -> Array:
        return jnp.zeros_like(row).at[row].set(places, unique_indices=True)

    return jax.vmap(one)(order)
