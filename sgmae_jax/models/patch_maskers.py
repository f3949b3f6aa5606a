"""MLO-MAE's masking networks: how willingly each patch of an image is hidden."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmae_jax.models.layers import at_least_float32

# U(-1/sqrt(I), 1/sqrt(I)) for I inputs, of kernels and of biases.
_KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _bias(inputs: int) -> Callable[..., Array]:
    bound = 1 / math.sqrt(inputs)

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


class FlatMasker(nn.Module):
    """Two layers on all tokens of an image at once, made for one size of grid.

    Its first layer alone has N * D * hidden weights: 100 million for 256 tokens of
    width 768, more than the encoder.

    Attributes:
        hidden: units between the two layers.

    Reference: Alexiland/MLO-MAE model_mae_new.py.
    """

    hidden: int = 512

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N"]:
        """Logits, large = hide, computed in float32 at least.

        Args:
            tokens: embedded patches with their positions, all of them.
        """
        batch, count, width = tokens.shape
        x = at_least_float32(tokens).reshape(batch, count * width)
        x = nn.relu(_dense(self.hidden, x, "hidden"))
        return _dense(count, x, "logits")


class SharedMasker(nn.Module):
    """The same two layers for every token, which sees itself and the image's mean.

    It has no more weights for more tokens; where a token is, it knows from the
    positions that the tokens carry. Not the authors'.

    Attributes:
        hidden: units between the two layers.
    """

    hidden: int = 512

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N"]:
        """As `FlatMasker`."""
        x = nn.LayerNorm(1e-6, use_fast_variance=False, name="norm")(
            at_least_float32(tokens)
        )
        whole = _dense(self.hidden, x.mean(1, keepdims=True), "context")
        x = nn.relu(_dense(self.hidden, x, "hidden") + whole)
        return _dense(1, x, "logits")[..., 0]


def _dense(features: int, x: Float[Array, "*rows I"], name: str) -> Array:
    layer = nn.Dense(
        features,
        dtype=x.dtype,
        kernel_init=_KERNEL,
        bias_init=_bias(x.shape[-1]),
        name=name,
    )
    return layer(x)
