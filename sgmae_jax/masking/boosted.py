"""A soft sample over patches becomes a hard mask that still carries its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from sgmae_jax.masking.select import inverse, select
from sgmae_jax.masking.types import Mask

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def gumbel_softmax(
    logits: Float[Array, "B N"], gumbel: Float[Array, "B N"], temperature: float | Array
) -> Float[Array, "B N"]:
    """A soft one-hot sample of the distribution that the logits describe.

    Args:
        logits: any range; a constant added to a row changes nothing.
        gumbel: standard Gumbel noise, `jax.random.gumbel`.
        temperature: > 0; towards 0 the sample becomes one-hot.

    Returns:
        Non-negative, each row sums to 1.

    Reference: Jang et al., Categorical Reparameterization with Gumbel-Softmax (2017).
    """
    return jax.nn.softmax((jax.nn.log_softmax(logits) + gumbel) / temperature)


def boosted_mask(
    sample: Float[Array, "B N"],
    noise: Float[Array, "B N"],
    *,
    num_keep: int,
    boost: float = 0.5,
) -> Mask:
    """Hide at random, but the tokens that a sample prefers rather than others.

    The K largest of the sample get `boost` on top of uniform noise; the K tokens that
    then are lowest stay visible. In the forward pass the gate is 1. Backward it hands
    what the loss would gain, were a visible token scaled, on to the sample:
    d loss / d sample_i = boost * <d loss / d z_i, z_i> for visible i, else 0.

    Args:
        sample: what is to be hidden, larger = rather; carries the gradient.
        noise: uniform in [0, 1).
        num_keep: K, also the number of boosted tokens; static.
        boost: >= 0. With K/N = 1/4 and 0.5 no boosted token is ever visible.

    Reference: hyperea/automae models_mae.py, random_masking.
    """
    order = jnp.argsort(-jax.lax.stop_gradient(sample), axis=-1, stable=True)
    top = (inverse(order) < num_keep).astype(sample.dtype)
    # A difference first, so that the value is exactly `top`.
    through = top + (sample - jax.lax.stop_gradient(sample))
    score = noise + boost * through
    gate = 1 + (score - jax.lax.stop_gradient(score))
    return select(score, num_keep)._replace(gate=gate)
