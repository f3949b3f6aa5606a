"""Images to patches and back; patches standardised one by one."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def patchify(
    images: Shaped[Array, "B H W C"], patch_size: tuple[int, int]
) -> Shaped[Array, "B N P"]:
    """Cuts images into patches, row by row.

    Args:
        images: any dtype and number of channels.
        patch_size: (height, width) in pixels.

    Returns:
        Patches; inside one the order is (row, column, channel), channel fastest.

    Raises:
        ValueError: the image is no whole number of patches.
    """
    batch, height, width, channels = images.shape
    rows, columns = patch_size
    if height % rows or width % columns:
        raise ValueError(
            f"image of {height}x{width} pixels is no whole number of patches of "
            f"{rows}x{columns} pixels"
        )
    grid = (height // rows, width // columns)
    cut = images.reshape(batch, grid[0], rows, grid[1], columns, channels)
    return cut.swapaxes(2, 3).reshape(
        batch, grid[0] * grid[1], rows * columns * channels
    )


def unpatchify(
    patches: Shaped[Array, "B N P"], patch_size: tuple[int, int], grid: tuple[int, int]
) -> Shaped[Array, "B H W C"]:
    """The inverse of `patchify`.

    Args:
        patches: in (row, column, channel) order.
        patch_size: (height, width) in pixels.
        grid: patches (h, w).

    Raises:
        ValueError: number or size of the patches contradict grid and patch size.
    """
    batch, tokens, values = patches.shape
    rows, columns = patch_size
    if tokens != grid[0] * grid[1]:
        raise ValueError(f"{tokens} patches do not fill a grid of {grid[0]}x{grid[1]}")
    if values % (rows * columns):
        raise ValueError(
            f"patches of {values} values are no whole number of channels of "
            f"{rows}x{columns} pixels"
        )
    channels = values // (rows * columns)
    cut = patches.reshape(batch, *grid, rows, columns, channels)
    return cut.swapaxes(2, 3).reshape(
        batch, grid[0] * rows, grid[1] * columns, channels
    )


def normalise_patches(
    patches: Float[Array, "B N P"],
) -> tuple[Float[Array, "B N P"], Float[Array, "B N 1"], Float[Array, "B N 1"]]:
    """Every patch by its own mean and deviation.

    Returns:
        (standardised patches, mean, deviation); the deviation is
        sqrt(unbiased variance + 1e-6).

    Raises:
        ValueError: patches of one value have no deviation.

    Reference: facebookresearch/mae models_mae.py, forward_loss.
    """
    if patches.shape[-1] < 2:
        raise ValueError("patches of a single value cannot be standardised")
    mean = patches.mean(-1, keepdims=True)
    std = jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
    return (patches - mean) / std, mean, std
