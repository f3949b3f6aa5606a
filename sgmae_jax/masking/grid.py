"""Grid-wise masks: the visible tokens form a regular lattice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from sgmae_jax.masking.keys import check_keys
from sgmae_jax.masking.lookup import look_up
from sgmae_jax.masking.select import select
from sgmae_jax.masking.types import Context, Mask, num_keep

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Key


def grid_mask(
    keys: Key[Array, " B"],
    context: Context,
    *,
    ratio: float,
    cell: tuple[int, int] = (2, 2),
    random_offset: bool = False,
) -> Mask:
    """Keep the same places of every cell of tokens; hide all others.

    With the defaults and ratio 0.75 one token of every 2x2 cell is visible. For other
    ratios the places of a cell are filled one after the other, in all cells alike;
    where the number kept stops halfway through a place, the cells that have it are
    themselves a regular lattice. So every whole cell keeps the same number of tokens,
    give or take one, and the total is exact.

    Our reading: MAE shows one of four alone; other ratios, the order of the places
    (that of an ordered dither) and the offset are ours.

    Args:
        keys: one an example; they matter only with `random_offset`.
        context: only its grid is read.
        ratio: share of the tokens to hide, in [0, 1]; static.
        cell: (rows, columns) of a cell in tokens, each >= 1; (3, 3) suits 8/9.
        random_offset: shift the lattice by a random place of the cell, for each
            example; without it the mask is one and the same for all.

    Returns:
        Mask that hides exactly N - num_keep(N, ratio) tokens of every example.

    Raises:
        TypeError: keys of the wrong kind (see `example_keys`).
        ValueError: a value out of range.

    Reference: He et al. 2022, section 4.1 and figure 6 (grid-wise sampling).
    """
    check_keys(keys)
    if min(cell) < 1:
        raise ValueError(f"cell must be (rows, columns), each >= 1, got {cell}")
    keep = num_keep(context.num_tokens, ratio)
    places = cell[0] * cell[1] if random_offset else 1
    ranks = np.stack([_keep_rank(context.grid, cell, place) for place in range(places)])
    # Drawn even where there is but one place: so the mask lies where its keys lie.
    offset = jax.vmap(lambda key: jax.random.randint(key, (), 0, places))(keys)
    return select(look_up(ranks, offset), keep)


def _keep_rank(grid: tuple[int, int], cell: tuple[int, int], offset: int) -> np.ndarray:
    """Keep order of the tokens, i32[N]: places of a cell first, then cells."""
    row, column = np.indices(grid).reshape(2, -1)
    row, column = row + offset // cell[1], column + offset % cell[1]
    inner = _dither(row % cell[0], column % cell[1])
    outer = _dither(row // cell[0], column // cell[1])
    order = np.lexsort((outer, inner))
    return np.argsort(order).astype(np.int32)


def _dither(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Place in the order of an ordered-dither matrix: neighbours lie far apart."""
    bits = int(max(row.max(), column.max())).bit_length()
    value = np.zeros_like(row)
    for bit in range(bits):
        row_bit, column_bit = row >> bit & 1, column >> bit & 1
        value = 4 * value + 2 * (row_bit ^ column_bit) + row_bit
    return value
