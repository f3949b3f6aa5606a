"""One token of a time series of an agent: a pyramid of 1-d neighbourhood attention."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sgmae_jax.models.layers import Linear, Mlp, at_least_float32, layer_norm

LEVELS = ((2, 3), (2, 3), (2, 5))  # blocks and window of every level
BLOCKS = sum(blocks for blocks, _ in LEVELS)
HEAD_WIDTH = 16
_EPS = 1e-5


def _uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform within 1 / sqrt(fan_in), as PyTorch's convolutions start."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(
    features: int, inputs: int, *, stride: int = 1, bias: bool = True, **given
) -> nn.Conv:
    """A convolution of three steps over [rows, T, C]."""
    init = _uniform(3 * inputs)
    return nn.Conv(
        features,
        (3,),
        strides=(stride,),
        padding=given.pop("padding", ((1, 1),)),
        use_bias=bias,
        kernel_init=init,
        bias_init=init,
        **given,
    )


class NeighbourhoodAttention(nn.Module):
    """Every step attends to the `window` steps around it, at the ends to the last ones.

    Dense: a softmax over all steps with minus infinity outside, which for up to 60
    steps is the simplest fast form.

    Reference: Hassani et al., Neighborhood Attention Transformer (2023); NATTEN 0.14.
    """

    heads: int
    window: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "R T C"]) -> Float[Array, "R T C"]:
        rows, length, width = x.shape
        qkv = Linear(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(rows, length, 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(qkv, (2, 3), (0, 2))
        bias = self.param(
            "relative",
            nn.initializers.truncated_normal(0.02),
            (self.heads, 2 * self.window - 1),
        )
        steps = jnp.arange(length)
        start = jnp.clip(steps - self.window // 2, 0, length - self.window)[:, None]
        inside = (steps >= start) & (steps < start + self.window)
        apart = steps[None, :] - steps[:, None] + self.window - 1
        places = jnp.clip(apart, 0, 2 * self.window - 2)
        scores = at_least_float32((query * query.shape[-1] ** -0.5) @ key.mT)
        scores = scores + bias[:, places].astype(scores.dtype)
        scores = jnp.where(inside, scores, jnp.finfo(scores.dtype).min)
        mixed = jax.nn.softmax(scores).astype(value.dtype) @ value
        mixed = mixed.swapaxes(1, 2).reshape(rows, length, width)
        return Linear(width, dtype=self.dtype, name="proj")(mixed)


class _Block(nn.Module):
    """x += Attention(Norm x); x += Mlp(Norm x)."""

    window: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, scales):
        heads = x.shape[-1] // HEAD_WIDTH
        attention = NeighbourhoodAttention(heads, self.window, self.dtype, name="attn")
        mlp = Mlp(3 * x.shape[-1], self.dtype, name="mlp")
        for index, (name, branch) in enumerate((("norm1", attention), ("norm2", mlp))):
            change = branch(layer_norm(self.dtype, name, _EPS)(x))
            if scales is not None:
                change = change * scales[index][:, None, None].astype(change.dtype)
            x = x + change
        return x


class AgentEmbedder(nn.Module):
    """The last step of a feature pyramid over a time series.

    Attributes:
        width: D of the token, a multiple of 64.
        dtype: of compute.

    Reference: jchengai/forecast-mae layers/embedding.py.
    """

    width: int
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(
        self,
        series: Float[Array, "R T C"],
        scales: Float[Array, "6 2 R"] | None = None,
    ) -> Float[Array, "R D"]:
        """Tokens of R series.

        Args:
            series: T of at least 17 steps; what is missing is 0 and says so.
            scales: of the blocks' branches, see `drop_path_scales`; None: all 1.
        """
        widths = [self.width // 4, self.width // 2, self.width]
        x = conv(widths[0], series.shape[-1], dtype=self.dtype, name="embed")(series)
        levels, block = [], 0
        for level, (blocks, window) in enumerate(LEVELS):
            if level:
                inner = widths[level - 1]
                x = conv(
                    2 * inner,
                    inner,
                    stride=2,
                    bias=False,
                    dtype=self.dtype,
                    name=f"down{level}",
                )(x)
                x = layer_norm(self.dtype, f"down_norm{level}", _EPS)(x)
            for index in range(blocks):
                own = None if scales is None else scales[block]
                x = _Block(window, self.dtype, name=f"level{level}_block{index}")(
                    x, own
                )
                block += 1
            normed = layer_norm(self.dtype, f"norm{level}", _EPS)(x)
            lateral = conv(
                self.width, widths[level], dtype=self.dtype, name=f"lateral{level}"
            )
            levels.append(lateral(normed))
        top = levels.pop()
        while levels:
            below = levels.pop()
            top = below + jax.image.resize(top, below.shape, "linear", antialias=False)
        # Of the last convolution one step is wanted: it sees two steps and the border.
        last = conv(
            self.width, self.width, padding=((0, 1),), dtype=self.dtype, name="last"
        )
        return last(top[:, -2:])[:, 0]
