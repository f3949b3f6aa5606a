"""Batch norm without parameters, as functions: by the batch, and by what runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Statistics = dict[str, Float[Array, " D"]]
_EPS = 1e-6
_PACE = 0.1  # share of a batch in the running statistics


def no_statistics(width: int) -> Statistics:
    """Running statistics before the first batch: mean 0, variance 1."""
    return {"mean": jnp.zeros(width), "var": jnp.ones(width)}


def standardised(
    features: Float[Array, "B D"], mean: Float[Array, " D"], var: Float[Array, " D"]
) -> Float[Array, "B D"]:
    """Features less their mean, over their deviation."""
    return (features - mean) * jax.lax.rsqrt(var + _EPS)


def running(
    statistics: Statistics,
    mean: Float[Array, " D"],
    var: Float[Array, " D"],
    count: int | Array,
) -> Statistics:
    """The running statistics after a batch.

    Args:
        statistics: {"mean", "var"} so far.
        mean: of the batch.
        var: of the batch, over its count; what runs is the unbiased one, as in PyTorch.
        count: rows of the batch, at least 2.
    """
    batch = {"mean": mean, "var": var * (count / (count - 1))}
    return jax.tree.map(lambda old, new: old + _PACE * (new - old), statistics, batch)
