"""Pixels as targets, and the error on hidden ones."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmae_jax.models.patches import normalise_patches, patchify


def pixel_targets(
    images: Float[Array, "B H W C"], patch_size: tuple[int, int], *, norm_pix: bool
) -> Float[Array, "B N P"]:
    """What the decoder should predict for every patch.

    Args:
        images: standardised per channel.
        patch_size: (height, width) in pixels.
        norm_pix: whether each patch is standardised by its own mean and deviation.
    """
    patches = patchify(images, patch_size)
    return normalise_patches(patches)[0] if norm_pix else patches


def reconstruction_loss(
    pred: Float[Array, "B N P"],
    target: Float[Array, "B N P"],
    loss_weight: Float[Array, "B N"],
) -> Float[Array, ""]:
    """Mean squared error of a patch, averaged over patches by weight.

    Args:
        pred: float32.
        target: float32.
        loss_weight: 1 for patches that count (MAE: the hidden ones); their sum over
            the batch must not be 0.

    Reference: facebookresearch/mae models_mae.py, forward_loss.
    """
    error = jnp.square(pred - target).mean(-1)
    return jnp.sum(error * loss_weight) / jnp.sum(loss_weight)
