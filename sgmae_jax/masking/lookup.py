"""Rows of a constant table by a random index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Int


def look_up(table: np.ndarray, index: Int[Array, ...]) -> Int[Array, ...]:
    """table[index], without a gather.

    JAX refuses a gather from a table by indices that are divided over an explicit
    mesh, as it cannot tell how the result should be divided. Adding up the jumps from
    row to row has only one answer; it is exact for integers, and cheap where the table
    is small or, being sorted, has few different rows.

    Args:
        table: S rows of integers, constant.
        index: in [0, S).

    Returns:
        Array of shape [*index.shape, *table.shape[1:]].
    """
    jumps = np.diff(table, axis=0, prepend=0)
    starts = np.flatnonzero(jumps.reshape(len(table), -1).any(axis=1))
    passed = index[..., None] >= jnp.asarray(starts, index.dtype)
    passed = passed.reshape(*passed.shape, *(1,) * (table.ndim - 1))
    return jnp.where(passed, jumps[starts], 0).sum(index.ndim)
