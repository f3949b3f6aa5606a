"""Heads that tell the class of every pixel from an encoder's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sgmae_jax.models.layers import at_least_float32, layer_norm

POOLS = (1, 2, 3, 6)


def spaced_layers(depth: int) -> tuple[int, ...]:
    """Four evenly spaced layers of an encoder, counted from 1; the last is `depth`."""
    # Deviation: BEiT reads the layers 4, 6, 8 and 12 of 12.
    return tuple(-(-depth * part // 4) for part in (1, 2, 3, 4))


def resized(
    x: Float[Array, "B h w C"], size: tuple[int, int]
) -> Float[Array, "B H W C"]:
    """Bilinear, with half-pixel centres and without antialiasing."""
    shape = (x.shape[0], *size, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


class LinearSegmenter(nn.Module):
    """LayerNorm and one linear layer on every token of the last layer.

    Attributes:
        classes: K, at least 1.
        image_size: (H, W) in pixels, to which the logits are enlarged bilinearly.
        dtype: of compute.
    """

    classes: int
    image_size: tuple[int, int]
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(
        self, layers: Sequence[Float[Array, "B h w D"]]
    ) -> Float[Array, "B H W K"]:
        """Logits of all pixels, at least float32; the last of `layers` is read."""
        normed = layer_norm(self.dtype, "norm")(layers[-1])
        logits = _classifier(self.classes, self.dtype)(normed)
        return resized(at_least_float32(logits), self.image_size)

    def macs(self, grid: tuple[int, int], width: int) -> int:
        """Multiply-adds for one image, of a token grid (h, w) and a width D."""
        return grid[0] * grid[1] * width * self.classes


class UPerNet(nn.Module):
    """Pyramid pooling on the coarsest of four scales, then top-down to the finest.

    The four layers have one scale; transposed convolutions bring the first two to four
    and two times the grid, max-pooling the last to half of it.

    # Deviation: LayerNorm over the channels in place of batch norm, which would need
    # statistics beside the parameters; one in front of each layer too, as the stream
    # of a frozen encoder grows with its depth. No dropout and no auxiliary head.

    Attributes:
        classes: K, at least 1.
        image_size: (H, W) in pixels, to which the logits are enlarged bilinearly.
        width: channels of the pyramid.
        dtype: of compute.

    Reference: Xiao et al., Unified Perceptual Parsing for Scene Understanding (2018);
    four scales of a plain ViT: Bao et al., BEiT (2022), whose recipe MAE takes (A.4).
    """

    classes: int
    image_size: tuple[int, int]
    width: int
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(
        self, layers: Sequence[Float[Array, "B h w D"]]
    ) -> Float[Array, "B H W K"]:
        """Logits of all pixels, at least float32.

        Args:
            layers: four layers of the encoder, early ones first.
        """
        normed = [
            layer_norm(self.dtype, f"norm{level}")(layer)
            for level, layer in enumerate(layers)
        ]
        *finer, coarsest = self._scales(normed)
        lateral = [
            self._conv(scale, 1, f"lateral{level}") for level, scale in enumerate(finer)
        ]
        lateral.append(self._pyramid(coarsest))
        for level in (2, 1, 0):
            above = resized(lateral[level + 1], _sides(lateral[level]))
            lateral[level] += above
        smooth = [self._conv(lateral[level], 3, f"smooth{level}") for level in range(3)]
        size = _sides(smooth[0])
        levels = [resized(level, size) for level in (*smooth, lateral[3])]
        fused = self._conv(jnp.concatenate(levels, -1), 3, "fuse")
        logits = _classifier(self.classes, self.dtype)(fused)
        return resized(at_least_float32(logits), self.image_size)

    def macs(self, grid: tuple[int, int], width: int) -> int:
        """Multiply-adds for one image, of a token grid (h, w) and a width D."""
        (h, w), own = grid, self.width
        cells = [16 * h * w, 4 * h * w, h * w, -(-h // 2) * -(-w // 2)]
        # Each output of a transposed convolution of stride 2 meets one weight.
        up = (cells[1] + cells[0] + cells[1]) * width**2
        lateral = sum(cells[:3]) * width * own
        pools = sum(pool**2 for pool in POOLS) * width * own
        pyramid = cells[3] * 9 * (width + len(POOLS) * own) * own
        smooth = sum(cells[:3]) * 9 * own**2
        fuse = cells[0] * (9 * 4 * own + self.classes) * own
        return up + lateral + pools + pyramid + smooth + fuse

    def _scales(self, layers: list[Array]) -> list[Array]:
        """Four, two, one and half times the grid; an odd side is halved upwards."""

        def double(x: Array, name: str) -> Array:
            # A transposed convolution of kernel and stride 2 is one linear layer: each
            # cell makes four of its own. On a CPU that is twenty times as fast.
            (h, w), width = _sides(x), x.shape[-1]
            made = nn.Dense(4 * width, use_bias=False, dtype=self.dtype, name=name)(x)
            cells = made.reshape(-1, h, w, 2, 2, width).transpose(0, 1, 3, 2, 4, 5)
            return cells.reshape(-1, 2 * h, 2 * w, width)

        first, second, third, last = layers
        first = layer_norm(self.dtype, "up_norm")(double(first, "up0a"))
        first = double(nn.gelu(first), "up0b")
        half = nn.max_pool(last, (2, 2), (2, 2), "SAME")
        return [first, double(second, "up1"), third, half]

    def _pyramid(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w own"]:
        """The map beside its means over 1, 4, 9 and 36 parts."""
        size = _sides(x)
        seen = [x]
        for pool in POOLS:
            down, right = (_mean_over(length, pool) for length in size)
            means = jnp.einsum("ih,jw,bhwd->bijd", down, right, x).astype(x.dtype)
            seen.append(resized(self._conv(means, 1, f"pool{pool}"), size))
        return self._conv(jnp.concatenate(seen, -1), 3, "pyramid")

    def _conv(self, x: Array, side: int, name: str) -> Array:
        """A convolution, norm and ReLU."""

        x = nn.Conv(
            self.width, (side, side), use_bias=False, dtype=self.dtype, name=name
        )(x)
        return nn.relu(layer_norm(self.dtype, f"{name}_norm")(x))


def _sides(x: Float[Array, "B h w D"]) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


def _classifier(classes: int, dtype: DTypeLike) -> nn.Dense:
    return nn.Dense(
        classes,
        dtype=dtype,
        kernel_init=nn.initializers.truncated_normal(0.02),
        name="linear",
    )


def _mean_over(length: int, parts: int) -> Float[Array, "parts length"]:
    """Rows that average a line over equal parts; of a short line, parts overlap."""
    index = jnp.arange(parts)
    first, end = index * length // parts, -(-(index + 1) * length // parts)
    place = jnp.arange(length)
    inside = (place >= first[:, None]) & (place < end[:, None])
    return inside / (end - first)[:, None]
