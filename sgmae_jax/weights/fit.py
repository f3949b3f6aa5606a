"""Weights for images of another size or number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from sgmae_jax.models import resize_positions, sincos_table
from sgmae_jax.weights.errors import WeightsError

Grid = tuple[int, int]
Tree = dict[str, Any]


def with_positions(tree: Tree, grid: Grid) -> Tree:
    """A part whose position table is written out, float32, also where it is fixed.

    Args:
        tree: of an encoder or decoder.
        grid: tokens (h, w).
    """
    if "pos_embed" in tree:
        return tree
    return {**tree, "pos_embed": _fixed(grid, tree["norm"]["scale"].size)}


def without_fixed_positions(
    parts: dict[str, Tree], grid: Grid
) -> tuple[dict[str, Tree], str]:
    """Parts in which a table is a parameter only if it must be.

    Args:
        parts: by name, positions written out.
        grid: tokens (h, w).

    Returns:
        The parts, and the config's `model.positions`: "sincos" where each table is the
        fixed one bit for bit, else "learned", for all of them.
    """
    fixed = all(
        np.array_equal(tree["pos_embed"], _fixed(grid, tree["norm"]["scale"].size))
        for tree in parts.values()
    )
    if not fixed:
        return parts, "learned"
    return {
        part: {name: leaf for name, leaf in tree.items() if name != "pos_embed"}
        for part, tree in parts.items()
    }, "sincos"


def fit_positions(tree: Tree, grid: Grid, wanted: Grid) -> Tree:
    """A part for another grid; see `resize_positions`.

    Args:
        tree: positions written out.
        grid: tokens (h, w) of the tree.
        wanted: tokens (h, w) of the result.
    """
    return {**tree, "pos_embed": resize_positions(tree["pos_embed"], grid, wanted)}


def fit_channels(
    kernel: Float[np.ndarray, "P D"], channels: int, wanted: int
) -> Float[np.ndarray, "Q D"]:
    """A patch kernel for images of another number of channels.

    One channel gets the sum over the old ones, which a grey image repeated in each
    would have met. More get the old ones in turn, scaled by the ratio of the numbers.

    Args:
        kernel: of patches in (row, column, channel) order.
        channels: of the kernel, 1 or 3 if they are to change.
        wanted: of the result.

    Raises:
        WeightsError: other channels than those of grey or colour images.

    Reference: timm's `in_chans`, timm/models/_manipulate.py, adapt_input_conv.
    """
    if channels == wanted:
        return kernel
    if channels not in (1, 3):
        raise WeightsError(
            f"patch_embed.kernel is for {channels} channels: only those of 1 or 3 can "
            f"be made for {wanted}"
        )
    pixels = kernel.reshape(-1, channels, kernel.shape[-1]).astype(np.float64)
    if wanted == 1:
        pixels = pixels.sum(1, keepdims=True)
    else:
        pixels = pixels[:, np.arange(wanted) % channels] * (channels / wanted)
    return pixels.reshape(-1, kernel.shape[-1]).astype(kernel.dtype)


def fit_statistics(values: tuple[float, ...], wanted: int) -> tuple[float, ...]:
    """Means or deviations of channels for another number of them; our reading.

    One channel is standardised by the average; more by the old ones in turn.

    Args:
        values: one a channel.
        wanted: channels of the result.
    """
    if len(values) == wanted:
        return values
    if wanted == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(wanted))


def _fixed(grid: Grid, width: int) -> Float[np.ndarray, "1+N D"]:
    return sincos_table(grid, width).astype(np.float32)
