"""What features and attention of a transformer look like, as numbers per image.

Names are those of the self-guided MAE paper; every formula here is our reading of it,
as docs/analysis.md says in one place. All functions are pure and can be jitted.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sgmae_jax.masking.relations import EXACT, edge_weights, unit

_TINY = 1e-12


def intra_inter_weights(
    relations: Float[Array, "B N N"], object: Bool[Array, "B N"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Mean relation of two tokens in the same cluster, and in different ones.

    Args:
        relations: symmetric; their diagonal does not count.
        object: the bi-partition: True for the tokens of one cluster.

    Returns:
        (intra, inter); 0 where there is no such pair.
    """
    inside = object.astype(jnp.float32)
    same = inside[:, :, None] == inside[:, None, :]
    other = ~jnp.eye(relations.shape[-1], dtype=bool)
    return (
        _mean_where(relations, same & other),
        _mean_where(relations, ~same),
    )


def feature_variance(
    features: Float[Array, "B N D"], chosen: Bool[Array, "B N"] | None = None
) -> Float[Array, " B"]:
    """Variance over tokens of the features scaled to length 1, summed over D.

    Args:
        features: of any scale; a zero vector stays zero.
        chosen: the tokens that count, at least one; None: all of them.

    Returns:
        In [0, 1]: 1 - |mean unit vector|^2, or less where there are zero vectors.
    """
    scaled = unit(features)
    count = jnp.ones(scaled.shape[:2]) if chosen is None else chosen.astype(jnp.float32)
    weight = count / jnp.maximum(count.sum(-1, keepdims=True), 1)
    mean = jnp.einsum("bn,bnd->bd", weight, scaled, precision=EXACT)
    spread = jnp.square(scaled - mean[:, None]).sum(-1)
    return (weight * spread).sum(-1)


def mask_token_variance(
    features: Float[Array, "B N D"], hidden: Float[Array, "B N"]
) -> Float[Array, " B"]:
    """`feature_variance` of the tokens that stand in for hidden patches.

    Args:
        features: of a decoder layer, patch tokens.
        hidden: 1 for mask tokens.
    """
    return feature_variance(features, hidden > 0)


def similarity_variance(relations: Float[Array, "B N N"]) -> Float[Array, " B"]:
    """Variance of the relations over all pairs i < j: how polarised they are."""
    rows, columns = np.triu_indices(relations.shape[-1], 1)
    return relations[:, rows, columns].astype(jnp.float32).var(-1)


def relation_divergence(
    final: Float[Array, "B N N"],
    now: Float[Array, "B N N"],
    temperature: float = 1.0,
) -> Float[Array, " B"]:
    """KL(final || now) of the softmax of each row of relations, mean of the rows.

    Args:
        final: relations of the last checkpoint.
        now: of the one in question.
        temperature: relations are divided by it, > 0.

    Returns:
        In nats, >= 0.
    """
    wanted = jax.nn.log_softmax(final.astype(jnp.float32) / temperature)
    found = jax.nn.log_softmax(now.astype(jnp.float32) / temperature)
    return (jnp.exp(wanted) * (wanted - found)).sum(-1).mean(-1)


def attention_distance(
    attention: Float[Array, "B H 1+N 1+N"],
    grid: tuple[int, int],
    queries: Float[Array, "B N"] | None = None,
) -> Float[Array, "B H"]:
    """Mean distance in the grid between a patch and the patches it attends to.

    Args:
        attention: maps, class token first; its row and column are dropped, the rest
            brought back to rows that sum to 1.
        grid: tokens (h, w).
        queries: weight of each patch as a query; None: all alike.

    Returns:
        In tokens (Euclidean), mean over the queries.
    """
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    apart = np.hypot(y[:, None] - y, x[:, None] - x)
    away = _patch_attention(attention) * jnp.asarray(apart, jnp.float32)
    far = away.sum(-1)
    if queries is None:
        return far.mean(-1)
    return (far * queries[:, None]).sum(-1) / jnp.maximum(queries.sum(-1), 1)[:, None]


def attention_nmi(attention: Float[Array, "B H 1+N 1+N"]) -> Float[Array, "B H"]:
    """Normalised mutual information of query and key: 0 = all queries look alike.

    Args:
        attention: as for `attention_distance`.

    Returns:
        I(q; k) / sqrt(H(q) H(k)) in [0, 1], with p(q) = 1/N and p(k|q) = attention; 1
        where each query attends to one key of its own.

    Reference: Park et al., What Do Self-Supervised Vision Transformers Learn? (2023).
    """
    given = _patch_attention(attention)
    alone = given.mean(-2)
    entropy = -(alone * jnp.log(alone + _TINY)).sum(-1)
    ratio = jnp.log(given + _TINY) - jnp.log(alone + _TINY)[..., None, :]
    shared = (given * ratio).sum(-1).mean(-1)
    norm = jnp.sqrt(np.log(given.shape[-1]) * jnp.maximum(entropy, 0))
    return jnp.where(norm > 1e-6, shared / jnp.maximum(norm, 1e-6), 0)


def spectrum(relations: Float[Array, "B N N"]) -> Float[Array, "B N"]:
    """Eigenvalues of D^-1/2 W D^-1/2, descending; as many near 1 as there are clusters.

    Args:
        relations: symmetric; negative ones are cut at 0, and W is the graph that
            `masking.guide` divides with tau = 0.

    Returns:
        In [-1, 1], the first is 1; 1 - the second is `Cut.eigenvalue`.
    """
    weights = edge_weights(relations)
    scale = jax.lax.rsqrt(weights.sum(-1))
    matrix = weights * scale[:, :, None] * scale[:, None, :]
    return jnp.linalg.eigvalsh(matrix)[:, ::-1]


def frequencies(grid: tuple[int, int]) -> Float[np.ndarray, " F"]:
    """Frequencies of `relative_log_amplitude`; 1 = one period in two tokens."""
    rings = min(grid) // 2
    return np.arange(rings + 1) / max(rings, 1)


def relative_log_amplitude(
    features: Float[Array, "B N D"], grid: tuple[int, int]
) -> Float[Array, "B F"]:
    """Log amplitude of the token map by spatial frequency, less that of frequency 0.

    Args:
        features: of patch tokens, row by row.
        grid: tokens (h, w).

    Returns:
        Natural logarithm, mean over channels and over the rings around frequency 0
        that `frequencies` lists; corners beyond the last ring are left out.

    Reference: Park and Kim, How Do Vision Transformers Work? (2022), who take the
    diagonal of the spectrum instead of rings.
    """
    batch, _, width = features.shape
    maps = features.astype(jnp.float32).reshape(batch, *grid, width)
    amplitude = jnp.log(jnp.abs(jnp.fft.fft2(maps, axes=(1, 2))) + 1e-6).mean(-1)
    # 1 at one period in two tokens, whatever the side's length.
    y, x = (2 * np.abs(np.fft.fftfreq(side)) for side in grid)
    ring = np.rint(np.hypot(y[:, None], x) * (min(grid) // 2)).astype(int)
    ring = np.maximum(ring, 1)
    ring[0, 0] = 0
    rings = np.arange(min(grid) // 2 + 1)
    member = (ring[None] == rings[:, None, None]).astype(np.float32)
    member /= np.maximum(member.sum((1, 2), keepdims=True), 1)
    found = jnp.einsum("bhw,fhw->bf", amplitude, member, precision=EXACT)
    return found - found[:, :1]


def _patch_attention(attention: Array) -> Array:
    """Attention among patches alone, rows that sum to 1."""
    maps = attention.astype(jnp.float32)[..., 1:, 1:]
    total = maps.sum(-1, keepdims=True)
    return maps / jnp.where(total > 0, total, 1)


def _mean_where(values: Array, chosen: Array) -> Array:
    count = chosen.sum((1, 2))
    total = jnp.where(chosen, values, 0).sum((1, 2))
    return total / jnp.maximum(count, 1)
