"""One token of a line of points: a small PointNet with batch norms."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from sgmae_jax.models.layers import Linear, at_least_float32
from sgmae_jax.models.statistics import Statistics, no_statistics

_EPS = 1e-5
# The two norms, by name: widths are D and 2 D.
NORMS = ("first", "second")


def no_moments(width: int) -> dict[str, Statistics]:
    """Running statistics of both norms before the first batch."""
    return {"first": no_statistics(width), "second": no_statistics(2 * width)}


class _BatchNorm(nn.Module):
    """Standardises by given statistics or by those of the batch; scales and shifts."""

    @nn.compact
    def __call__(self, x, weight, given):
        x = at_least_float32(x)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        if given is None:
            total = jnp.maximum(weight.sum() * x.shape[2], 1.0)
            mean = (x * weight).sum((0, 1, 2)) / total
            var = (jnp.square(x - mean) * weight).sum((0, 1, 2)) / total
            given = {"mean": mean, "var": var}
        normed = (x - given["mean"]) * jax.lax.rsqrt(given["var"] + _EPS)
        return normed * scale + bias, given


class LaneEmbedder(nn.Module):
    """Points through a shared MLP, their maximum, and once more with it.

    Attributes:
        width: D of the token.
        dtype: of compute; norms are float32.

    Reference: jchengai/forecast-mae layers/lane_embedding.py, after PointNet.
    """

    width: int
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "B M P C"],
        counted: Bool[Array, "B M"],
        statistics: dict[str, Statistics] | None = None,
    ) -> tuple[Float[Array, "B M D"], dict[str, Statistics]]:
        """Tokens of lanes, and the statistics that they were standardised by.

        Args:
            points: of lines, with the mark of which of them are there.
            counted: lanes whose points count in the statistics of the batch.
            statistics: running ones, by norm; None: those of this batch.
        """
        weight = counted[:, :, None, None].astype(jnp.float32)
        given = statistics or dict.fromkeys(NORMS)

        def dense(features: int, name: str) -> Linear:
            return Linear(features, dtype=self.dtype, name=name)

        x = dense(self.width, "first_in")(points)
        x, first = _BatchNorm(name="first_norm")(x, weight, given["first"])
        x = dense(2 * self.width, "first_out")(nn.relu(x))
        most = jnp.broadcast_to(x.max(2, keepdims=True), x.shape)
        x = dense(2 * self.width, "second_in")(jnp.concatenate([most, x], -1))
        x, second = _BatchNorm(name="second_norm")(x, weight, given["second"])
        x = dense(self.width, "second_out")(nn.relu(x)).max(2)
        return x, {"first": first, "second": second}
