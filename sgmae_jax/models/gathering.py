"""Where parameters are while a block computes with them."""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec
from jaxtyping import PyTree


def held_whole(params: PyTree) -> PyTree:
    """A block's parameters, gathered from the devices that keep their parts.

    Left to itself the partitioner divides the products instead, and sends activations.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.shape.get("fsdp", 1) == 1:
        return params
    return jax.tree.map(
        lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec()), params
    )
