"""Analyses A and B: what stays of a token under another mask, and what it copies.

Definitions are ours, after the claims of the abstract of LC-MAE: docs/laboratory.md.
All functions are pure and can be jitted; images are the first axis of what they return.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from sgmae_jax.masking import Context, Mask, example_keys, random_mask
from sgmae_jax.masking.relations import EXACT, unit
from sgmae_jax.methods.pixels import pixel_targets
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.decoder import unshuffle

_FEATURES = ("features",)


def masks_of(
    model: Autoencoder, ids: Int[Array, " B"], draw: Any, *, ratio: float, seed: int
) -> Mask:
    """Random masks of images; those of another `draw` are independent."""
    key = jax.random.key(seed)
    epoch = jnp.full_like(ids, 0) + draw
    keys = example_keys(key, epoch, ids, "laboratory")
    return random_mask(keys, Context(grid=model.grid), ratio=ratio)


def same_token_similarity(
    first: Float[Array, "B N D"],
    second: Float[Array, "B N D"],
    counted: Float[Array, "B N"],
) -> Float[Array, "B 2"]:
    """Mean cosine of a token to itself under another mask, and to other tokens of it.

    Args:
        first: tokens under one mask.
        second: under another.
        counted: 1 for tokens that are there under both.

    Returns:
        (same token, other tokens of the same image); NaN where fewer than two count.
    """
    x, y = unit(first), unit(second)
    pairs = jnp.einsum("bnd,bmd->bnm", x, y, precision=EXACT)
    both = counted[:, :, None] * counted[:, None, :]
    own = jnp.eye(pairs.shape[-1]) * both
    other = both - own
    enough = counted.sum(-1) >= 2
    found = [
        (pairs * chosen).sum((1, 2)) / jnp.maximum(chosen.sum((1, 2)), 1)
        for chosen in (own, other)
    ]
    return jnp.where(enough[:, None], jnp.stack(found, -1), jnp.nan)


def invariance(
    model: Autoencoder,
    params: PyTree,
    images: Float[Array, "B H W C"],
    ids: Int[Array, " B"],
    *,
    ratio: float,
    seed: int,
    pairs: int = 4,
) -> dict[str, Float[Array, "B L 2"]]:
    """Analysis A: `same_token_similarity` by layer, mean over pairs of masks.

    Encoder tokens count where they are visible under both masks, decoder tokens where
    they are hidden under both.
    """
    embedded = model.embed(params, images)

    def look(draw):
        mask = masks_of(model, ids, draw, ratio=ratio, seed=seed)
        found = model.predict(params, embedded, mask, capture=_FEATURES).captured

        def spread(kept):
            kept = kept[:, 1:].astype(jnp.float32)
            return unshuffle(kept, jnp.zeros(kept.shape[-1]), mask)

        tokens = {
            "encoder": jax.vmap(spread)(found["encoder"]["features"]),
            "decoder": found["decoder"]["features"][:, :, 1:].astype(jnp.float32),
        }
        return tokens, mask.hidden

    def pair(index):
        (one, hidden), (two, others) = look(2 * index), look(2 * index + 1)
        counted = {"encoder": (1 - hidden) * (1 - others), "decoder": hidden * others}
        return {
            part: jax.vmap(same_token_similarity, (0, 0, None), 1)(
                one[part], two[part], counted[part]
            )
            for part in one
        }

    found = jax.lax.map(pair, jnp.arange(pairs))
    return jax.tree.map(lambda x: jnp.nanmean(x, 0), found)


def over_masks(
    model: Autoencoder,
    params: PyTree,
    images: Float[Array, "B H W C"],
    ids: Int[Array, " B"],
    *,
    ratio: float,
    seed: int,
    norm_pix: bool,
    masks: int = 32,
) -> dict[str, Array]:
    """Predictions and decoder tokens of hidden patches, their mean over masks.

    Returns:
        prediction: [B, N, P] mean over the masks that hide the patch;
        tokens: [L, B, N, E] likewise of the decoder's layers;
        hidden: [B, N] how many masks hide it;
        error: [B] E|y - x|^2 / P over hidden patches and masks;
        variance: [B] the share of it that is variance over masks, times it: half of
            E|y - y'|^2 / P over pairs of masks;
        bias: [B] the rest of it, |E y - x|^2 / P without the mean's own variance;
        target: [B, N, P].
    """
    target = pixel_targets(images, model.patch_size, norm_pix=norm_pix)
    embedded = model.embed(params, images)

    def look(total, draw):
        mask = masks_of(model, ids, draw, ratio=ratio, seed=seed)
        found = model.predict(params, embedded, mask, capture=_FEATURES)
        hidden = mask.hidden[..., None]
        tokens = found.captured["decoder"]["features"][:, :, 1:].astype(jnp.float32)
        added = {
            "prediction": found.tokens * hidden,
            "square": jnp.square(found.tokens).mean(-1) * mask.hidden,
            "error": jnp.square(found.tokens - target).mean(-1) * mask.hidden,
            "tokens": tokens * hidden,
            "hidden": mask.hidden,
        }
        return jax.tree.map(jnp.add, total, added), None

    start = _sums(model, embedded, target)
    total, _ = jax.lax.scan(look, start, jnp.arange(masks))
    count = total["hidden"]
    safe = jnp.maximum(count, 1)[..., None]
    prediction = total["prediction"] / safe
    spread = total["square"] / safe[..., 0] - jnp.square(prediction).mean(-1)
    # Patches hidden less than twice say nothing of the variance.
    counted = jnp.where(count >= 2, count, 0)
    unbiased = spread * count / jnp.maximum(count - 1, 1)
    weight = counted / jnp.maximum(counted.sum(-1, keepdims=True), 1)
    variance = (unbiased * weight).sum(-1)
    error = (total["error"] / safe[..., 0] * weight).sum(-1)
    return {
        "prediction": prediction,
        "tokens": total["tokens"] / safe,
        "hidden": count,
        "error": error,
        "variance": variance,
        "bias": error - variance,
        "target": target,
    }


def _sums(model: Autoencoder, embedded: Array, target: Array) -> dict[str, Array]:
    """Zeros like what `over_masks` sums up."""
    batch, tokens = embedded.shape[:2]
    decoder = model.decoder
    rows = jnp.zeros((batch, tokens))
    return {
        "prediction": jnp.zeros(target.shape),
        "square": rows,
        "error": rows,
        "tokens": jnp.zeros((decoder.depth, batch, tokens, decoder.width)),
        "hidden": rows,
    }


def distances(tokens: Float[Array, "B N D"]) -> Float[Array, "B M"]:
    """Euclidean distances of all pairs of tokens of an image, each pair once."""
    x = tokens.astype(jnp.float32)
    square = jnp.square(x).sum(-1)
    product = jnp.einsum("bnd,bmd->bnm", x, x, precision=EXACT)
    apart = jnp.maximum(square[:, :, None] + square[:, None, :] - 2 * product, 0)
    rows, columns = np.triu_indices(x.shape[1], 1)
    return jnp.sqrt(apart[:, rows, columns])


def spearman(
    first: Float[Array, "B M"], second: Float[Array, "B M"]
) -> Float[Array, " B"]:
    """Rank correlation of the rows, ties by their mean rank; NaN of constant rows."""
    rank = jax.vmap(lambda row: jax.scipy.stats.rankdata(row))
    return correlation(rank(first), rank(second))


def correlation(
    first: Float[Array, "B M"], second: Float[Array, "B M"]
) -> Float[Array, " B"]:
    """Pearson correlation of the rows; NaN of constant rows."""
    x, y = (a - a.mean(-1, keepdims=True) for a in (first, second))
    scale = jnp.sqrt(jnp.square(x).sum(-1) * jnp.square(y).sum(-1))
    return (x * y).sum(-1) / jnp.where(scale > 0, scale, jnp.nan)


def geometry(
    tokens: Float[Array, "B N D"], patches: Float[Array, "B N P"]
) -> Float[Array, "B 2"]:
    """Analysis B: how alike the tokens of an image lie to its patches.

    Returns:
        (Spearman correlation of the distances of all pairs, linear CKA).
    """
    ranks = spearman(distances(tokens), distances(patches))
    return jnp.stack([ranks, image_cka(tokens, patches)], -1)


def image_cka(
    first: Float[Array, "B N D"], second: Float[Array, "B N P"]
) -> Float[Array, " B"]:
    """Linear CKA of two descriptions of the same tokens, image by image.

    Reference: Kornblith et al., Similarity of Neural Network Representations (2019).
    """
    x, y = (a - a.mean(1, keepdims=True) for a in (first, second))

    def hsic(a, b):
        both = jnp.einsum("bnd,bne->bde", a, b, precision=EXACT)
        return jnp.square(both).sum((1, 2))

    scale = jnp.sqrt(hsic(x, x) * hsic(y, y))
    return hsic(x, y) / jnp.where(scale > 0, scale, jnp.nan)
