"""The one layer that SMA is built of: attention over any keys, then an MLP.

Reference: Xie et al., Self-Guided Masked Autoencoders for Domain-Agnostic
Self-Supervised Learning (2024); Johnathan-Xie/sma modeling_sma.py, after Perceiver IO.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from sgmae_jax.models.layers import Linear, at_least_float32, gelu, layer_norm

NORM_EPS = 1e-5
# Of the norm of embedded inputs and of the decoder's last one.
OUTER_NORM_EPS = 1e-12
normal = nn.initializers.normal(0.02)


def linear(width: int, dtype: DTypeLike, name: str | None) -> Linear:
    """Dense with weights from N(0, 0.02^2) and bias 0."""
    return Linear(width, dtype=dtype, kernel_init=normal, name=name)


def dropped(
    x: Float[Array, "B *rest"], keys: Key[Array, " B"] | None, rate: float
) -> Float[Array, "B *rest"]:
    """Dropout whose chance is each example's own; without keys nothing is dropped."""
    if keys is None or not rate:
        return x

    def one(key: Array) -> Array:
        return jax.random.bernoulli(key, 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(one)(keys), x / (1 - rate), 0)


class AttentionLayer(nn.Module):
    """x += Attention(Norm x, keys); x += Mlp(Norm x).

    Attributes:
        heads: H.
        qk_width: of all heads' queries, and of their keys; a multiple of H.
        v_width: of all heads' values; a multiple of H.
        mlp_ratio: hidden width of the MLP over the width of x.
        residual: whether x is added to what attention makes of it.
        dtype: of compute; softmax and norms are float32 at least.
        attention_dropout: chance of an attention weight to be dropped.
        dropout: chance of a value of either branch to be dropped.
    """

    heads: int
    qk_width: int
    v_width: int
    mlp_ratio: float = 1.0
    residual: bool = True
    dtype: DTypeLike = "float32"
    attention_dropout: float = 0.0
    dropout: float = 0.0

    def setup(self):
        self.norm = layer_norm(self.dtype, None, NORM_EPS)
        self.query = linear(self.qk_width, self.dtype, None)
        self.key = linear(self.qk_width, self.dtype, None)
        self.value = linear(self.v_width, self.dtype, None)

    def logits(
        self, x: Float[Array, "B Q D"], keys: Float[Array, "B N E"] | None = None
    ) -> Float[Array, "B H Q N"]:
        """How much each query wants each key; nothing is blocked.

        Args:
            x: what queries are made of.
            keys: as they are, without a norm; None: those of x, normed.
        """
        h = self.norm(x)
        q = self._heads(self.query(h))
        k = self._heads(self.key(h if keys is None else keys))
        q = q * q.shape[-1] ** -0.5
        return at_least_float32(jnp.matmul(q, k.mT))

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        keys: Float[Array, "B N E"] | None = None,
        key_valid: Bool[Array, "B N"] | None = None,
        noise: Key[Array, " B"] | None = None,
        scales: Float[Array, "2 B"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """The layer's output.

        Args:
            x: what queries are made of.
            keys: what is looked at, without a norm; None: x itself, normed.
            key_valid: False = nobody looks at it; None = everybody may.
            noise: for dropout, one key an example; None: nothing is dropped.
            scales: of the two branches, see `drop_path_scales`; None: 1.
        """
        logits = self.logits(x, keys)
        if key_valid is not None:
            never = jnp.finfo(logits.dtype).min
            logits = jnp.where(key_valid[:, None, None], logits, never)
        maps = dropped(jax.nn.softmax(logits), folded(noise, 0), self.attention_dropout)
        v = self._heads(self.value(self.norm(x) if keys is None else keys))
        mixed = jnp.matmul(maps.astype(v.dtype), v).swapaxes(1, 2)
        mixed = mixed.reshape(*mixed.shape[:2], self.v_width)
        out = linear(x.shape[-1], self.dtype, "out")(mixed)
        out = _scaled(dropped(out, folded(noise, 1), self.dropout), scales, 0)
        x = x + out if self.residual else out
        hidden = linear(int(self.mlp_ratio * x.shape[-1]), self.dtype, "fc1")(
            layer_norm(self.dtype, "mlp_norm", NORM_EPS)(x)
        )
        out = linear(x.shape[-1], self.dtype, "fc2")(gelu(hidden))
        return x + _scaled(dropped(out, folded(noise, 2), self.dropout), scales, 1)

    def _heads(self, x: Float[Array, "B T W"]) -> Float[Array, "B H T d"]:
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)


def folded(keys: Key[Array, " B"] | None, number: int) -> Key[Array, " B"] | None:
    """Further keys of each example, or still none."""
    if keys is None:
        return None
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _scaled(branch: Array, scales: Float[Array, "2 B"] | None, index: int) -> Array:
    if scales is None:
        return branch
    return branch * scales[index][:, None, None].astype(branch.dtype)
