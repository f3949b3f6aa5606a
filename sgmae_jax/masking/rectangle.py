"""Random rectangles as soft maps: what AutoMAE's discriminator is told is real."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from sgmae_jax.masking.keys import check_keys

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int, Key


def rectangle_maps(
    keys: Key[Array, " B"],
    grid: tuple[int, int],
    *,
    area: tuple[float, float] = (40 / 196, 160 / 196),
    length: tuple[float, float] = (4 / 14, 10 / 14),
    strength: float = 0.5,
) -> Float[Array, "B N"]:
    """A noisy rectangle an example, as a distribution over the patches.

    Area and width are drawn as whole numbers of tokens between the shares given (the
    defaults are the authors' numbers on their 14x14 grid), the height follows and is
    cut off at the grid's, the place is uniform.

    Args:
        keys: one an example.
        grid: (h, w) in tokens.
        area: least and largest share of all tokens, in (0, 1].
        length: least and largest share of the grid's width, in (0, 1].
        strength: what the inside has more than the outside, before the softmax of
            rectangle plus uniform noise.

    Returns:
        Non-negative maps, each sums to 1.

    Reference: hyperea/automae models_mae.py.
    """
    check_keys(keys)
    height, width = grid

    def whole(shares: tuple[float, float], of: int) -> tuple[int, int]:
        low, high = (max(1, min(of, round(share * of))) for share in shares)
        return low, high

    areas, lengths = whole(area, height * width), whole(length, width)

    def one(key: Array) -> Array:
        of_area, of_length, of_x, of_y, of_noise = jax.random.split(key, 5)
        size = jax.random.randint(of_area, (), areas[0], areas[1] + 1)
        columns = jax.random.randint(of_length, (), lengths[0], lengths[1] + 1)
        rows = jnp.minimum(height, -(-size // columns))
        left = jax.random.randint(of_x, (), 0, width - columns + 1)
        top = jax.random.randint(of_y, (), 0, height - rows + 1)
        noise = jax.random.uniform(of_noise, (height, width))
        return rectangle_map(
            jnp.stack([rows, columns, top, left]), noise, strength=strength
        )

    return jax.vmap(one)(keys)


def rectangle_map(
    place: Int[Array, "4"], noise: Float[Array, "h w"], *, strength: float = 0.5
) -> Float[Array, "N"]:
    """The map of one rectangle.

    Args:
        place: rows, columns, top, left, in tokens.
        noise: in [0, 1).
        strength: see `rectangle_maps`.
    """
    rows, columns, top, left = place
    y, x = jnp.indices(noise.shape)
    inside = (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
    return jax.nn.softmax((noise + strength * inside).ravel())
