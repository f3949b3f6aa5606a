"""Analysis E: effective receptive fields, by derivatives of what is made of a patch.

E_i(j) = |d (sum of the values at i) / d (what went in at j)| for visible j, and how far
from i the mass of it lies. Definitions are ours; see docs/laboratory.md.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from sgmae_jax.analysis.invariance import masks_of
from sgmae_jax.masking import Mask
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.decoder import unshuffle

# Between what and what: pixels and predictions, latent and predictions, pixels and
# latent.
FIELDS = ("model", "decoder", "encoder")
SHARES = (0.5, 0.9)


def grid_distances(grid: tuple[int, int]) -> Float[np.ndarray, "N N"]:
    """Euclidean distances of all patches, in patches."""
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    return np.hypot(y[:, None] - y, x[:, None] - x).astype(np.float32)


def receptive_field(
    outputs: Callable[[Array], Float[Array, "B N *values"]],
    inputs: Float[Array, "B N P"],
    queries: Int[Array, "B Q"],
    visible: Float[Array, "B N"],
) -> Float[Array, "B Q N"]:
    """Norms of the derivatives of each image's queries, one backward pass a query.

    Args:
        outputs: of each image by its own inputs alone.
        inputs: what it is differentiated by.
        queries: tokens whose summed output is differentiated.
        visible: 1 where an input counts.
    """
    made, pull = jax.vjp(outputs, inputs)
    images = jnp.arange(len(inputs))

    def one(query):
        wanted = jnp.zeros_like(made).at[images, query].set(1)
        return jnp.linalg.norm(pull(wanted)[0], axis=-1) * visible

    return jax.lax.map(one, queries.T).swapaxes(0, 1)


def fields(
    model: Autoencoder,
    params: PyTree,
    images: Float[Array, "B H W C"],
    ids: Int[Array, " B"],
    *,
    ratio: float,
    seed: int,
    queries: int,
) -> dict[str, Float[Array, "B Q N"]]:
    """The three fields of `FIELDS` under a random mask, in order of `queried`."""
    mask = masks_of(model, ids, 0, ratio=ratio, seed=seed)
    hidden, seen = queried(mask, queries)
    visible = 1 - mask.hidden
    patches = model.patches(images)
    encoder = {"params": params["encoder"]}
    decoder = {"params": params["decoder"]}

    def latent_of(patches):
        tokens = jnp.asarray(model.encoder.apply(encoder, patches, method="embed"))
        kept = jnp.take_along_axis(tokens, mask.ids_keep[..., None], axis=1)
        return jnp.asarray(model.encoder.apply(encoder, kept)[0])

    def spread(kept):
        return unshuffle(kept, jnp.zeros(kept.shape[-1], kept.dtype), mask)

    def gather(tokens):
        return jnp.take_along_axis(tokens, mask.ids_keep[..., None], axis=1)

    latent = latent_of(patches)

    def predict(latent):
        return model.decoder.apply(decoder, latent, mask)[0][:, 1:]

    def from_tokens(tokens):
        return predict(jnp.concatenate([latent[:, :1], gather(tokens)], axis=1))

    return {
        "model": receptive_field(
            lambda x: predict(latent_of(x)), patches, hidden, visible
        ),
        "decoder": receptive_field(from_tokens, spread(latent[:, 1:]), hidden, visible),
        "encoder": receptive_field(
            lambda x: spread(latent_of(x)[:, 1:]), patches, seen, visible
        ),
    }


def queried(mask: Mask, queries: int) -> tuple[Int[Array, "B Q"], Int[Array, "B Q"]]:
    """Hidden and visible tokens of each image to ask about: the first in mask order.

    At most as many as there are; which ones is as random as the mask.
    """
    order = jnp.argsort(mask.ids_restore, axis=-1)
    kept = mask.ids_keep.shape[1]
    return order[:, kept:][:, :queries], order[:, :kept][:, :queries]


def radii(
    field: Float[Array, "B Q N"], query: Int[Array, "B Q"], grid: tuple[int, int]
) -> Float[Array, "B S"]:
    """Radius in patches that holds each of `SHARES` of a field's mass; mean of queries.

    NaN for a field of zeros.
    """
    apart = jnp.asarray(grid_distances(grid))[query]
    order = jnp.argsort(apart, axis=-1)
    far = jnp.take_along_axis(apart, order, axis=-1)
    mass = jnp.cumsum(jnp.take_along_axis(field, order, axis=-1), axis=-1)
    whole = mass[..., -1:]
    found = []
    for share in SHARES:
        reached = mass >= share * whole * (1 - 1e-6)
        radius = jnp.take_along_axis(far, reached.argmax(-1)[..., None], axis=-1)
        found.append(jnp.where(whole > 0, radius, jnp.nan)[..., 0].mean(-1))
    return jnp.stack(found, -1)


def profile(
    field: Float[Array, "B Q N"], query: Int[Array, "B Q"], grid: tuple[int, int]
) -> Float[Array, "B R"]:
    """Share of a field's mass by distance, in rings one patch wide; mean of queries."""
    apart = grid_distances(grid)
    rings = int(np.floor(apart.max() + 0.5)) + 1
    ring = jnp.asarray(np.floor(apart + 0.5).astype(np.int32))[query]
    inside = jax.nn.one_hot(ring, rings)
    mass = jnp.einsum("bqn,bqnr->bqr", field, inside)
    whole = mass.sum(-1, keepdims=True)
    return (mass / jnp.where(whole > 0, whole, 1)).mean(1)
