"""Mixup and CutMix: images mixed with others of their batch, and their targets too.

The one augmentation that knows its batch: what an image is mixed with is its partner in
the flipped batch, and all of a batch share one share, drawn from the step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def mix(
    key: Key[Array, ""],
    images: Float[Array, "B H W C"],
    targets: Float[Array, "B K"],
    *,
    mixup: float,
    cutmix: float,
) -> tuple[Float[Array, "B H W C"], Float[Array, "B K"]]:
    """A batch and its targets, mixed with themselves in reverse order.

    The share of an image's own pixels is lambda ~ Beta(a, a). Mixup blends the two
    images all over; CutMix puts a box of the other one in, of 1 - lambda of the area,
    centred anywhere and cut off at the border, after which lambda is what is left.
    Where both are on, each batch is mixed by one of them, picked evenly.

    Args:
        key: of the step.
        images: standardised.
        targets: rows that sum to 1, smoothed or not.
        mixup: a of mixup, >= 0; 0 turns it off.
        cutmix: a of CutMix, >= 0; 0 turns it off. One of the two is on.

    Reference: Zhang et al., mixup (2018); Yun et al., CutMix (2019); the batch mode of
    timm's Mixup.
    """
    pick, blend, cut = jax.random.split(key, 3)
    size = images.shape[1:3]
    weights = []  # how much of each pixel is the image's own, f32[H,W]
    if mixup:
        weights.append(jnp.full(size, jax.random.beta(blend, mixup, mixup)))
    if cutmix:
        weights.append(1 - _box(cut, size, cutmix))
    weight = weights[0]
    if len(weights) > 1:
        weight = jnp.where(jax.random.bernoulli(pick), weight, weights[1])
    weight = weight[..., None]
    share = weight.mean()
    mixed = weight * images + (1 - weight) * images[::-1]
    return mixed, share * targets + (1 - share) * targets[::-1]


def _box(key: Key[Array, ""], size: tuple[int, ...], alpha: float) -> Array:
    """1 inside of a random box, 0 outside, f32[H,W]."""
    first, *centres = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(first, alpha, alpha))
    inside = []
    for length, own in zip(size, centres, strict=True):
        half = jnp.floor(length * side) // 2
        centre = jax.random.randint(own, (), 0, length)
        place = jnp.arange(length)
        inside.append((place >= centre - half) & (place < centre + half))
    down, across = inside
    return (down[:, None] & across).astype(jnp.float32)
