"""The ViT encoder: embeds patches, and encodes the tokens it is given."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sgmae_jax.models.layers import Captured, Linear, Transformer


def uniform_bias(inputs: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(inputs), 1/sqrt(inputs)), PyTorch's default for a convolution."""
    bound = inputs**-0.5

    def init(key, shape, dtype=jnp.float32, **_):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Encoder(Transformer, kw_only=True):
    """Vision transformer with a class token; see `Transformer` for the other fields.

    Attributes:
        patch_values: P, values in a patch.

    Reference: facebookresearch/mae models_mae.py.
    """

    patch_values: int

    def setup(self):
        self.patch_embed = Linear(
            self.width, dtype=self.dtype, bias_init=uniform_bias(self.patch_values)
        )
        self.position = self.position_rows()
        self.cls_token = self.param(
            "cls_token", nn.initializers.normal(0.02), (self.width,)
        )

    def embed(self, patches: Float[Array, "B N P"]) -> Float[Array, "B N D"]:
        """Tokens of all patches: projection plus position."""
        return self.patch_embed(patches) + self.position[1:]

    def begin(self, tokens: Float[Array, "B K D"]) -> Float[Array, "B 1+K D"]:
        """What the first block takes: the class token, with its position, in front."""
        first = self.cls_token.astype(self.dtype) + self.position[0]
        first = jnp.broadcast_to(first, (tokens.shape[0], 1, self.width))
        return jnp.concatenate([first, tokens.astype(self.dtype)], axis=1)

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B K D"],
        keep_valid: Bool[Array, "B K"] | None = None,
        *,
        capture: Sequence[str] = (),
        scales: Float[Array, "L 2 B"] | None = None,
        normed: bool = True,
    ) -> tuple[Float[Array, "B 1+K D"], Captured]:
        """Encodes tokens behind the class token; order among them does not matter.

        Args:
            tokens: embedded, with their positions.
            keep_valid: False = a padding slot, which changes no other token; None =
                every slot is real.
            capture: any of "features", "attention".
            scales: of the blocks' branches, see `drop_path_scales`; None: all 1.
            normed: False leaves the last norm out.

        Returns:
            Tokens, class token first, in the compute dtype; and what was captured
            (see `Transformer.run_blocks`).
        """
        key_valid = None
        if keep_valid is not None:
            key_valid = jnp.pad(keep_valid, ((0, 0), (1, 0)), constant_values=True)
        return self.run_blocks(self.begin(tokens), key_valid, capture, scales, normed)
