"""A masking network over an autoencoder's tokens: masks, and weights of the error."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmae_jax.masking import Mask
from sgmae_jax.methods.base import Metrics
from sgmae_jax.models.patch_maskers import FlatMasker, SharedMasker

# Logits of an image that lie closer together than this are equal.
_EQUAL = 1e-6
# Chances nearer to 0 or 1 than this count as saturated.
_SATURATED = 1e-3


def make_masker(part: Any) -> nn.Module:
    """The masking network that a config's `method` section describes."""
    kind = FlatMasker if part.masker == "flat" else SharedMasker
    return kind(part.masker_hidden)


def masker_macs(part: Any, tokens: int, width: int) -> int:
    """Multiply-adds of its forward pass for one image of N tokens of width D."""
    if part.masker == "flat":
        return part.masker_hidden * tokens * (width + 1)
    return part.masker_hidden * ((tokens + 1) * width + tokens)


def weighted_error(
    error: Float[Array, "B N"],
    chances: Float[Array, "B N"],
    hidden: Float[Array, "B N"],
    norm: str,
) -> Float[Array, ""]:
    """The error of hidden patches, each weighted by its chance to be hidden.

    Args:
        error: of each patch.
        chances: sigmoid of the masking network's logits.
        hidden: 1 where the encoder did not see the patch.
        norm: "count", divided by the number of hidden patches, so that smaller chances
            make a smaller loss; or "sum", by their summed chances, so that only the
            ratios of chances count.

    Reference: Alexiland/MLO-MAE cifar_mae_model.py, for "count".
    """
    weight = chances * hidden
    return jnp.sum(weight * error) / jnp.sum(hidden if norm == "count" else weight)


def mask_metrics(logits: Float[Array, "B N"], mask: Mask) -> Metrics:
    """What the log says of a batch's masks.

    Args:
        logits: of the masking network.
        mask: chosen by them.

    Returns:
        "chance", the mean over hidden patches; "saturated", the share of chances at 0
        or 1; "equal_logits", the share of images whose patches are all alike to the
        network; "mask_overlap", the mean share that the hidden patches of an image and
        of the next one in the batch have in common.
    """
    chances = jax.nn.sigmoid(logits)
    spread = logits.max(-1) - logits.min(-1)
    extreme = (chances < _SATURATED) | (chances > 1 - _SATURATED)
    both = jnp.sum(mask.hidden * jnp.roll(mask.hidden, 1, axis=0))
    return {
        "chance": jnp.sum(chances * mask.hidden) / mask.hidden.sum(),
        "saturated": extreme.astype(jnp.float32).mean(),
        "equal_logits": (spread < _EQUAL).astype(jnp.float32).mean(),
        "mask_overlap": both / mask.hidden.sum(),
    }
