"""Taking some tokens of each example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sgmae_jax.masking import Mask


def take_tokens(
    x: Float[Array, "B N D"], ids: Int[Array, "B K"], mask: Mask
) -> Float[Array, "B K D"]:
    """Returns the tokens of each example at its `ids`.

    Where no slot of the mask is padding an id stands once in its row. Saying so spares
    the gradient, which adds into the places the tokens came from, atomic additions on a
    GPU.

    Args:
        x: tokens.
        ids: which of them, 0 <= id < N; `mask.ids_keep` or `mask.ids_restore`. Another
            number gives NaN, which the training step refuses.
        mask: what they are of.
    """

    def one(x, ids):
        unique = mask.keep_valid is None
        return x.at[ids].get(unique_indices=unique, mode="fill", fill_value=jnp.nan)

    # By vmap, so that the batch is an axis of the gather itself: one that is indexed
    # would be sent between devices.
    return jax.vmap(one)(x, ids)
