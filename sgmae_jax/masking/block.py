"""Block-wise masks: rectangles are hidden until enough tokens are covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.masking.keys import check_keys
from sgmae_jax.masking.lookup import look_up
from sgmae_jax.masking.select import select
from sgmae_jax.masking.types import Context, Mask, num_keep

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Int, Key

_STEPS = 32  # quantiles of area, and of aspect ratio, in the table of shapes


def block_mask(
    keys: Key[Array, " B"],
    context: Context,
    *,
    ratio: float,
    area: tuple[float, float] = (0.08, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    rectangles: int = 64,
) -> Mask:
    """Hide random rectangles, then exactly the asked-for number of tokens.

    A fixed number of rectangles is drawn for each example; a token's place in the
    hide order is the number of the first one that covers it. The rectangle in which
    the count is reached is cut line by line from one of its four sides, so that the
    mask stays blocky; so are the tokens that no rectangle covers, should they be
    needed. Only integers are computed: the mask is the same on every kind of device.

    Our reading: area and aspect ratio follow BEiT (16 to 75 of 196 tokens, 0.3 to
    1/0.3), as MAE names BEiT's masks for this ablation and gives no numbers.

    Args:
        keys: one an example.
        context: only its grid is read.
        ratio: share of the tokens to hide, in [0, 1]; static.
        area: smallest and largest rectangle as a share of the tokens, in (0, 1]; drawn
            uniformly. No rectangle is larger than what has to be hidden.
        aspect: smallest and largest height / width, in tokens, > 0; drawn uniformly in
            its logarithm, within what the grid allows.
        rectangles: drawn for each example, 1 to 1024; static.

    Returns:
        Mask that hides exactly N - num_keep(N, ratio) tokens of every example.

    Raises:
        TypeError: keys of the wrong kind (see `example_keys`).
        ValueError: a value out of range.

    Reference: Bao et al. 2022 (BEiT), algorithm 1; He et al. 2022, figure 6.
    """
    check_keys(keys)
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area must be 0 < smallest <= largest <= 1, got {area}")
    if not 0 < aspect[0] <= aspect[1] < float("inf"):
        raise ValueError(f"aspect must be 0 < smallest <= largest, got {aspect}")
    if not 1 <= rectangles <= 1024:
        raise ValueError(f"rectangles must be 1 to 1024, got {rectangles}")
    keep = num_keep(context.num_tokens, ratio)
    shapes = _shapes(context.grid, context.num_tokens - keep, area, aspect)

    def one(key: Array) -> Array:
        return _keep_order(key, context.grid, shapes, rectangles)

    return select(jax.vmap(one)(keys), keep)


def _shapes(
    grid: tuple[int, int],
    hidden: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> np.ndarray:
    """Equally likely rectangles, i32[S], sorted: height * (grid width + 1) + width.

    A table made on the host, because exponentials and roots may round differently
    from device to device and from batch to batch; drawing a row of it does not.
    """
    height, width = grid
    tokens = height * width
    largest = max(min(area[1], hidden / tokens), 1 / tokens)
    middle = (np.arange(_STEPS) + 0.5) / _STEPS
    share = np.interp(middle, (0, 1), (min(area[0], largest), largest))
    slant = np.exp(np.interp(middle, (0, 1), np.log(aspect)))
    size, slant = (x.ravel() for x in np.meshgrid(share * tokens, slant))
    # Within these limits neither side is longer than the grid.
    slant = np.clip(slant, size / width**2, height**2 / size)
    sides = np.stack([np.sqrt(size * slant), np.sqrt(size / slant)], axis=1)
    rows, columns = np.clip(np.rint(sides), 1, grid).astype(np.int32).T
    return np.sort(rows * (width + 1) + columns)


def _keep_order(
    key: Array, grid: tuple[int, int], shapes: np.ndarray, rectangles: int
) -> Int[Array, " N"]:
    """Scores of one example, each different: the last to be hidden is the lowest."""
    height, width = grid
    tokens = height * width
    bits = jax.random.bits(key, (3 * rectangles + 1,), jnp.uint32)
    shape_bits, top_bits, left_bits = bits[:-1].reshape(3, rectangles)
    sides = look_up(shapes, shape_bits % len(shapes))
    rows, columns = sides // (width + 1), sides % (width + 1)
    top = (top_bits % (height - rows + 1).astype(jnp.uint32)).astype(jnp.int32)
    left = (left_bits % (width - columns + 1).astype(jnp.uint32)).astype(jnp.int32)

    def inside(length: int, start: Array, size: Array) -> Array:
        place = jnp.arange(length) - start[:, None]
        return (place >= 0) & (place < size[:, None])

    covered = (
        inside(height, top, rows)[:, :, None] & inside(width, left, columns)[:, None, :]
    ).reshape(rectangles, tokens)
    number = jnp.arange(rectangles)[:, None]
    first = jnp.where(covered, number, rectangles).min(0)

    lines = np.arange(tokens).reshape(grid)
    columnwise = np.argsort(lines.T.ravel())
    sweeps = np.stack([lines.ravel(), columnwise])
    sweeps = np.concatenate([sweeps, tokens - 1 - sweeps])
    return -(first * tokens + look_up(sweeps, bits[-1] % 4))
