"""Fixed two-dimensional sine-cosine positions, and tables for other grids."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Float64


@functools.lru_cache(maxsize=16)
def sincos_table(grid: tuple[int, int], width: int) -> Float64[np.ndarray, "1+N D"]:
    """One row per token, row by row of the grid, after a row of zeros for CLS.

    The first half of a row encodes the column, the second half the row of the grid;
    each half is sin, then cos, of the index times 10000^(-i / (D/4)).

    Args:
        grid: tokens (h, w).
        width: D, a multiple of 4.

    Returns:
        A read-only table in float64.

    Raises:
        ValueError: width is no multiple of 4.

    Reference: facebookresearch/mae util/pos_embed.py (its mesh puts the column first).
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need 4 | width, got width {width}")
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    rates = 10000.0 ** (-np.arange(width // 4) / (width // 4))

    def encode(index):
        angles = index[:, None] * rates
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    tokens = np.concatenate([encode(columns), encode(rows)], axis=1)
    table = np.concatenate([np.zeros((1, width)), tokens])
    table.flags.writeable = False
    return table


def resize_positions(
    table: Float[np.ndarray, "S+N D"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[np.ndarray, "S+M D"]:
    """A position table for another grid, by bicubic interpolation.

    Args:
        table: S >= 0 special rows (class token), which stay, then N = h * w rows.
        grid: tokens (h, w) of the table.
        size: tokens (h, w) of the result; the grid itself gives the table unchanged.

    Returns:
        A table in the dtype of the given one; computed in float64.

    Raises:
        ValueError: the table has fewer rows than the grid has tokens.

    Reference:
        facebookresearch/mae util/pos_embed.py, whose `interpolate` has half-pixel
        centres, no antialiasing and the kernel of Keys (1981) with a = -0.75.
    """
    tokens = grid[0] * grid[1]
    if len(table) < tokens:
        raise ValueError(f"a table of {len(table)} rows is none for a grid of {grid}")
    if grid == size:
        return table
    special, rows = np.split(np.asarray(table), [len(table) - tokens])
    image = rows.astype(np.float64).reshape(*grid, -1)
    down, right = (_cubic(*sides) for sides in zip(grid, size, strict=True))
    resized = np.einsum("ia,jb,abd->ijd", down, right, image)
    resized = resized.reshape(-1, table.shape[1]).astype(table.dtype)
    return np.concatenate([special, resized])


def _cubic(length: int, wanted: int) -> Float64[np.ndarray, "wanted length"]:
    """Weights of `length` values in `wanted` interpolated ones; the border repeats."""
    a = -0.75
    centres = (np.arange(wanted) + 0.5) * length / wanted - 0.5
    weights = np.zeros((wanted, length))
    for offset in range(-1, 3):
        source = np.floor(centres).astype(int) + offset
        x = np.abs(centres - source)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        value = np.where(x <= 1, near, np.where(x < 2, far, 0))
        np.add.at(weights, (np.arange(wanted), source.clip(0, length - 1)), value)
    return weights
