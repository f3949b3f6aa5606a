"""Fixed two-dimensional sine-cosine positions."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float64


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
