"""CL-MAE's masking network: a small transformer that says which patches to keep."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgmae_jax.models.layers import Linear, Transformer, at_least_float32


class CurriculumMasker(Transformer, kw_only=True):
    """Keep scores of all patches, from one class token; see `Transformer` for fields.

    Attributes:
        norm_eps: 1e-5, the default of the authors' framework.

    Reference: ristea/cl-mae models_mae.py, MaskingNet.
    """

    norm_eps: float = 1e-5

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N"]:
        """Scores in (0, 1), large = keep, at least float32.

        Args:
            tokens: embedded patches with their positions, all of them.
        """
        cls_token = self.param("cls_token", nn.initializers.normal(0.02), (self.width,))
        first = jnp.broadcast_to(cls_token, (tokens.shape[0], 1, self.width))
        x = jnp.concatenate([first, tokens], axis=1).astype(self.dtype)
        x, _ = self.run_blocks(x, None, ())
        # Half precision would saturate the sigmoid: ties among tokens, log of zero.
        cls = at_least_float32(x[:, 0])
        return nn.sigmoid(Linear(self.tokens, dtype=cls.dtype, name="head")(cls))
