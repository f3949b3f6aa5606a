"""How far predictions of hidden inputs are off: numbers, symbols, or both."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from sgmae_jax.models.sma import Inputs


class Error(NamedTuple):
    """Sums over each example's hidden inputs; see `mean`.

    Attributes:
        total: squared errors, mean over channels, and cross-entropies in nats.
        inputs: how many of them count.
    """

    total: Float[Array, " B"]
    inputs: Float[Array, " B"]

    def mean(self) -> Float[Array, ""]:
        """Over all hidden inputs of the batch, not example by example."""
        return self.total.sum() / jnp.maximum(self.inputs.sum(), 1)


def reconstruction_error(
    inputs: Inputs,
    prediction: Float[Array, "B N V"],
    weight: Float[Array, "B N"],
    *,
    clip: float | None = None,
    allowed: Bool[Array, "N S"] | None = None,
) -> Error:
    """Squared error of numbers, cross-entropy of symbols, summed over hidden inputs.

    Args:
        inputs: the truth. Numbers are targets as they are, standardised.
        prediction: first of C numbers, then logits of S symbols, as far as there are.
        weight: 1 for hidden inputs, else 0.
        clip: of the numbers that are to be predicted, to either side; None: none.
        allowed: symbols an input can be at all; others are no rivals. Where the true
            one is not allowed (a number that is missing), there is nothing to predict.

    Reference: Johnathan-Xie/sma modeling_sma.py, compute_reconstruction_loss.
    """
    each = jnp.zeros_like(weight)
    channels = 0
    if inputs.values is not None:
        channels = inputs.values.shape[-1]
        target = inputs.values
        if clip is not None:
            target = jnp.clip(target, -clip, clip)
        each = jnp.square(prediction[..., :channels] - target).mean(-1)
    if inputs.symbols is not None:
        logits, symbols = prediction[..., channels:], jnp.maximum(inputs.symbols, 0)
        if allowed is not None:
            logits = jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, symbols)
        is_symbol = inputs.symbols >= 0
        if allowed is not None:
            # One-hot, as JAX refuses to gather by indices that are divided.
            chosen = symbols[..., None] == jnp.arange(logits.shape[-1])
            known = (chosen & allowed).any(-1)
            weight = weight * (known | ~is_symbol)
            entropy = jnp.where(known, entropy, 0)
        each = jnp.where(is_symbol, entropy, each)
    return Error((each * weight).sum(-1), weight.sum(-1))
