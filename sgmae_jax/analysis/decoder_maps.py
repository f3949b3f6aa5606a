"""Analyses C and D: what the decoder's attention goes by, and how far it reaches.

Definitions are ours, after the reviews of LC-MAE; see docs/laboratory.md.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from sgmae_jax.analysis.invariance import correlation, masks_of
from sgmae_jax.analysis.metrics import attention_distance
from sgmae_jax.masking import Mask
from sgmae_jax.masking.relations import EXACT, unit
from sgmae_jax.models import Autoencoder

_ATTENTION = ("attention",)


def position_attention(model: Autoencoder, params: PyTree) -> Float[Array, "L 1+N 1+N"]:
    """The decoder's attention, mean of heads, where every token is mask and position.

    Of every layer, given what the layers below make of such tokens.
    """
    decoder = model.decoder
    own = params["decoder"]
    blank = jnp.asarray(decoder.apply({"params": own}, method="blank"))
    maps = [
        decoder.run_to_layer(own["blocks"], blank, layer + 1, decoder.pairs()).attention
        for layer in range(decoder.depth)
    ]
    return jnp.stack(maps)[:, 0].mean(1)


def masked_attention(
    model: Autoencoder, params: PyTree, images: Float[Array, "B H W C"], mask: Mask
) -> Float[Array, "L B H 1+N 1+N"]:
    """The decoder's attention under a mask."""
    embedded = model.embed(params, images)
    found = model.predict(params, embedded, mask, capture=_ATTENTION)
    return found.captured["decoder"]["attention"]


def by_position(
    model: Autoencoder,
    params: PyTree,
    images: Float[Array, "B H W C"],
    *,
    ratio: float,
    seed: int,
) -> Float[Array, "B L 2"]:
    """Analysis C: whether the rows of mask tokens are the same whatever the image.

    One mask for all images, or position would dominate trivially.

    Returns:
        (mean cosine to the maps of the other images, correlation with the maps of
        `position_attention`), each of the mask tokens' rows; of a layer.
    """
    one = masks_of(model, jnp.zeros(1, jnp.int32), 0, ratio=ratio, seed=seed)
    mask = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(images), *x.shape[1:])), one)
    maps = masked_attention(model, params, images, mask).mean(2)  # [L, B, T, T]
    alone = position_attention(model, params)
    hidden = one.ids_restore[0] >= one.ids_keep.shape[1]
    rows = (
        1 + jnp.argsort(~hidden, stable=True)[: hidden.shape[0] - one.ids_keep.shape[1]]
    )

    def layer(given):
        own, by_place = given
        flat = own[:, rows].reshape(len(own), -1)
        x = unit(flat)
        pairs = jnp.einsum("bd,cd->bc", x, x, precision=EXACT)
        others = (pairs.sum(-1) - jnp.diagonal(pairs)) / max(len(own) - 1, 1)
        place = jnp.broadcast_to(by_place[rows].reshape(1, -1), flat.shape)
        return jnp.stack([others, correlation(flat, place)], -1)

    return jax.lax.map(layer, (maps, alone)).swapaxes(0, 1)


def reach(
    model: Autoencoder,
    params: PyTree,
    images: Float[Array, "B H W C"],
    ids: Int[Array, " B"],
    *,
    ratio: float,
    seed: int,
) -> Float[Array, "B L"]:
    """Analysis D: attention distance of mask tokens' rows by layer, in patches."""
    mask = masks_of(model, ids, 0, ratio=ratio, seed=seed)
    maps = masked_attention(model, params, images, mask)

    def layer(own):
        return attention_distance(own, model.grid, mask.hidden).mean(-1)

    return jax.lax.map(layer, maps).swapaxes(0, 1)
