"""MAE's mask: every set of tokens is equally likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from sgmae_jax.masking.keys import check_keys
from sgmae_jax.masking.select import select
from sgmae_jax.masking.types import Context, Mask, num_keep

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Key


def random_mask(keys: Key[Array, " B"], context: Context, *, ratio: float) -> Mask:
    """Hide tokens uniformly at random.

    Args:
        keys: one an example.
        context: only its grid is read.
        ratio: share of the tokens to hide, in [0, 1]; static.

    Returns:
        Mask that hides exactly N - num_keep(N, ratio) tokens of every example.

    Raises:
        TypeError: keys of the wrong kind (see `example_keys`).
        ValueError: ratio out of range.

    Reference: He et al. 2022, section 3; `random_masking` in facebookresearch/mae.
    """
    check_keys(keys)
    tokens = context.num_tokens
    noise = jax.vmap(lambda key: jax.random.uniform(key, (tokens,)))(keys)
    return select(noise, num_keep(tokens, ratio))
