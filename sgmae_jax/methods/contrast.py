"""The terms a masked autoencoder's loss falls into, and negatives beside them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmae_jax.masking.relations import unit


def alignment(
    first: Float[Array, "B N P"],
    second: Float[Array, "B N P"],
    weight: Float[Array, "B N"],
) -> Float[Array, ""]:
    """Mean squared difference of one patch under two masks; 0 if none counts.

    Args:
        first: values of every patch under the one mask.
        second: under the other.
        weight: of each patch.
    """
    return _weighted(jnp.square(first - second).mean(-1), weight)


def consistency(
    first: Float[Array, "B N P"],
    second: Float[Array, "B N P"],
    target: Float[Array, "B N P"],
    weight: Float[Array, "B N"],
) -> Float[Array, ""]:
    """Mean squared difference between the mean of both predictions and the image.

    With `alignment` / 4 it makes, sample by sample, the mean of the two branches'
    errors: the parallelogram identity.
    """
    return alignment((first + second) / 2, target, weight)


def variance_share(
    aligned: Float[Array, ""], consistent: Float[Array, ""]
) -> Float[Array, ""]:
    """Share of the expected error that is variance over masks; 0 of an error of 0.

    E|y - y'|^2 / 2 is the variance, |(y + y') / 2 - x|^2 + |y - y'|^2 / 4 the error.
    """
    error = aligned / 4 + consistent
    return aligned / 2 / jnp.where(error > 0, error, 1)


def info_nce(
    queries: Float[Array, "B N D"],
    keys: Float[Array, "B N D"],
    weight: Float[Array, "B N"],
    *,
    temperature: float,
    images: int,
) -> Float[Array, ""]:
    """Each query must find its key among those of a few images; 0 if none counts.

    Args:
        queries: of any length; a zero vector is unlike every key.
        keys: the one at the same place is the positive, all others are negatives.
        weight: of each query.
        temperature: > 0.
        images: neighbours in the batch whose keys are held against a query, its own
            image among them; B must be a multiple of it.

    Returns:
        Mean of -log softmax(q . k / temperature) at the positive, in nats.
    """
    batch, count, width = queries.shape
    groups = batch // images, images * count
    q, k = (unit(x).reshape(*groups, width) for x in (queries, keys))
    logits = jnp.einsum("gnd,gmd->gnm", q, k) / temperature
    found = -jax.nn.log_softmax(logits)
    positive = jnp.diagonal(found, axis1=1, axis2=2)
    return _weighted(positive.reshape(batch, count), weight)


def uniformity(cls: Float[Array, "B D"]) -> Float[Array, ""]:
    """Mean squared cosine of all pairs of class tokens of a batch, i = j included.

    Reference: Zhang et al., How Mask Matters (NeurIPS 2022), U-MAE; zhangq327/U-MAE,
    which takes the class token after the encoder's last norm and weighs it with 0.01.
    """
    features = unit(cls)
    return jnp.square(features @ features.T).mean()


def _weighted(values: Float[Array, "B N"], weight: Float[Array, "B N"]) -> Array:
    total = weight.sum()
    return (values * weight).sum() / jnp.where(total > 0, total, 1)
