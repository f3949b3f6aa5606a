"""The MAE decoder: mask tokens for what was hidden, in image order, then a ViT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sgmae_jax.masking import Mask
from sgmae_jax.models.layers import Captured, Linear, Transformer, at_least_float32
from sgmae_jax.models.tokens import take_tokens


def unshuffle(
    kept: Float[Array, "B K D"], mask_token: Float[Array, "D"], mask: Mask
) -> Float[Array, "B N D"]:
    """Kept tokens at their places in the image, the mask token everywhere else."""
    batch, num_kept, width = kept.shape
    num_hidden = mask.ids_restore.shape[1] - num_kept
    fill = jnp.broadcast_to(mask_token, (batch, num_hidden, width))
    shuffled = jnp.concatenate([kept, fill], axis=1)
    full = take_tokens(shuffled, mask.ids_restore, mask)
    if mask.keep_valid is not None:
        # A hidden token may point at a padding slot.
        full = jnp.where(mask.hidden[..., None] > 0, mask_token, full)
    return full


def window_pairs(grid: tuple[int, int], radius: int) -> Bool[Array, "1 1 1+N 1+N"]:
    """Who attends to whom where a patch sees (2 radius + 1)^2 patches around itself.

    Patches do not see the class token, which has seen the whole image; it sees all.

    Args:
        grid: tokens (h, w).
        radius: in tokens along each axis, >= 0.
    """
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    apart = np.maximum(np.abs(y[:, None] - y), np.abs(x[:, None] - x))
    pairs = np.pad(apart <= radius, ((1, 0), (1, 0)))
    pairs[0] = True
    return jnp.asarray(pairs)[None, None]


class Decoder(Transformer, kw_only=True):
    """Predicts values for every token; see `Transformer` for the other fields.

    Attributes:
        out_values: predicted values per token.
        window: radius of what a patch attends to, see `window_pairs`; None: all.

    Reference: facebookresearch/mae models_mae.py.
    """

    out_values: int
    window: int | None = None
    LEAST_DEPTH: ClassVar[int] = 0

    def __post_init__(self):
        if self.window is not None and self.window < 0:
            raise ValueError(f"window {self.window}: must be None or at least 0")
        super().__post_init__()

    def pairs(self) -> Bool[Array, "1 1 1+N 1+N"] | None:
        """Who attends to whom; None: everybody to everybody."""
        return None if self.window is None else window_pairs(self.grid, self.window)

    def setup(self):
        self.embed = Linear(self.width, dtype=self.dtype)
        self.position = self.position_rows()
        self.mask_token = self.param(
            "mask_token", nn.initializers.normal(0.02), (self.width,)
        )

    def begin(
        self, latent: Float[Array, "B 1+K E"], mask: Mask
    ) -> Float[Array, "B 1+N D"]:
        """What the first block takes: all tokens at their places, with positions."""
        y = self.embed(latent)
        full = unshuffle(y[:, 1:], self.mask_token.astype(y.dtype), mask)
        return jnp.concatenate([y[:, :1], full], axis=1) + self.position

    def blank(self) -> Float[Array, "1 1+N D"]:
        """What the first block would take if nothing were known of an image."""
        return (self.mask_token.astype(self.dtype) + self.position)[None]

    @nn.compact
    def __call__(
        self,
        latent: Float[Array, "B 1+K E"],
        mask: Mask,
        *,
        capture: Sequence[str] = (),
        scales: Float[Array, "L 2 B"] | None = None,
    ) -> tuple[Float[Array, "B 1+N out_values"], Captured]:
        """Predictions for the class token and all N tokens, in image order.

        Args:
            latent: the encoder's output for the kept tokens, class token first.
            mask: the one that chose them.
            capture: any of "features", "attention".
            scales: of the blocks' branches, see `drop_path_scales`; None: all 1.

        Returns:
            Predictions (at least float32), and what was captured.
        """
        start = self.begin(latent, mask)
        x, captured = self.run_blocks(start, self.pairs(), capture, scales)
        out = Linear(self.out_values, dtype=self.dtype, name="pred")(x)
        return at_least_float32(out), captured
