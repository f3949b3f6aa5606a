"""How much the tokens of an image belong together: weighted graphs over patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

# Bfloat16 or TF32 products would spoil what an eigenvector is computed from.
EXACT = jax.lax.Precision.HIGHEST
_FLOOR = 1e-5


def cosine_relations(features: Float[Array, "B N D"]) -> Float[Array, "B N N"]:
    """Cosine of every pair of tokens.

    Args:
        features: of patch tokens, any scale and float type.

    Returns:
        float32 in [-1, 1], symmetric; a zero vector is unlike everything, itself too.

    Reference: the paper's "similarity score"; the formula is our reading.
    """
    x = unit(features)
    return jnp.einsum("bnd,bmd->bnm", x, x, precision=EXACT)


def unit(vectors: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
    """Vectors of length 1 in float32, whatever their scale was; zero stays zero."""
    vectors = vectors.astype(jnp.float32)
    # By the largest value first: squares of 1e30 or 1e-30 leave float32.
    largest = jnp.abs(vectors).max(-1, keepdims=True)
    vectors = vectors / jnp.where(largest > 0, largest, 1)
    norm = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.where(norm > 0, norm, 1)


def attention_relations(
    attention: Float[Array, "B H 1+N 1+N"],
) -> Float[Array, "B N N"]:
    """Attention between patches as an undirected graph.

    Args:
        attention: maps of one layer, class token first, rows that sum to 1.

    Returns:
        float32 >= 0, symmetric: the mean of heads without the class token, rows
        brought back to a sum of 1, averaged with its transpose.

    Reference: the paper's "attention score"; dropping the class token and
        symmetrising are our reading.
    """
    maps = attention.astype(jnp.float32).mean(1)[:, 1:, 1:]
    total = maps.sum(-1, keepdims=True)
    maps = maps / jnp.where(total > 0, total, 1)
    return (maps + maps.mT) / 2


def edge_weights(
    relations: Float[Array, "B N N"], tau: float = 0.0
) -> Float[Array, "B N N"]:
    """The connected graph that a cut divides: relations above tau, on a common scale.

    Args:
        relations: symmetric.
        tau: relations not above it do not join two tokens, >= 0.

    Returns:
        Weights > 0, near 1 on average: every pair is joined a little, so that no graph
        falls apart.
    """
    weights = jnp.where(relations > tau, relations, 0).astype(jnp.float32)
    mean = weights.mean((1, 2), keepdims=True)
    return weights / jnp.where(mean > 0, mean, 1) + _FLOOR
