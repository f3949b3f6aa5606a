"""Relevance maps by example, cropped and mirrored along with the image.

A map is kept in the frame of the whole image. A view says which part of it is shown:
rows (vertical, horizontal), columns (offset, scale), so that what is shown at position
p lies at offset + scale * p in the image. Positions run from 0 to 1 along each axis;
the scale of a mirrored axis is negative.

Our reading: the paper does not say whether or how maps are kept from step to step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Float, Float16, Int, Int32

_LARGEST = float(jnp.finfo(jnp.float16).max)


class Bank(NamedTuple):
    """One map an example, 2 * h * w + 4 bytes each.

    Attributes:
        relevance: of each token of the whole image, 0 where never written.
        written: step of the last write, -1 = never.
    """

    relevance: Float16[Array, "M h w"]
    written: Int32[Array, " M"]


def empty_bank(count: int, grid: tuple[int, int]) -> Bank:
    """A bank for examples 0 to count - 1 on a grid of (h, w) tokens, never written."""
    return Bank(jnp.zeros((count, *grid), jnp.float16), jnp.full(count, -1, jnp.int32))


def resample(
    maps: Float[Array, "B h w"], view: Float[Array, "B 2 2"]
) -> Float[Array, "B h w"]:
    """The maps as seen through views, on the same grid.

    Bilinear at the centres of the tokens; beyond the outermost centres their value.
    The identity changes no bit, and a mere flip reverses exactly.

    Args:
        maps: finite.
        view: the parts to look at; may reach beyond the map.

    Returns:
        f32, within the range of each map, to rounding.
    """
    rows = _weights(view[:, 0], maps.shape[1])
    columns = _weights(view[:, 1], maps.shape[2])
    # Two products with hat functions rather than a gather, which accelerators are
    # slow at and meshes divide badly. In full precision: 1 * x + 0 * y is x.
    return jnp.einsum(
        "bik,bkl,bjl->bij",
        rows,
        maps.astype(jnp.float32),
        columns,
        precision=jax.lax.Precision.HIGHEST,
    )


def invert(view: Float[Array, "B 2 2"]) -> Float[Array, "B 2 2"]:
    """Views that lead back: of the image's frame in the frame of what is shown.

    Args:
        view: of scale other than 0.
    """
    offset, scale = view[..., 0], view[..., 1]
    return jnp.stack((-offset / scale, 1 / scale), -1)


def read_bank(
    bank: Bank, ids: Int[Array, " B"], view: Float[Array, "B 2 2"]
) -> tuple[Float[Array, "B N"], Bool[Array, " B"]]:
    """The maps of some examples as their views show them.

    Args:
        bank: see `Bank`.
        ids: of the examples.
        view: part of each that is shown.

    Returns:
        relevance: f32; constant (0) for an example that was never written or that
            the bank does not have.
        known: False for those.
    """
    stored, written = _rows(bank, ids)
    return resample(stored, view).reshape(len(ids), -1), written >= 0


def write_bank(
    bank: Bank,
    ids: Int[Array, " B"],
    relevance: Float[Array, "B N"],
    view: Float[Array, "B 2 2"],
    step: int | Int[Array, ""],
) -> Bank:
    """Puts maps that were made on views back into the frame of the image.

    Tokens whose centre lies inside the view are overwritten, the others keep what they
    had; if the example was never written, they take the nearest value seen. Of an
    example that is there twice one row is written, and all of it. An example that the
    bank does not have, or whose map is not finite throughout, changes nothing.

    Args:
        bank: see `Bank`; may be donated.
        ids: of the examples.
        relevance: of each token shown; beyond +-65504, the range of float16, cut.
        view: part of the image that each map was made on.
        step: training step, >= 0.
    """
    count, height, width = bank.relevance.shape
    maps = relevance.reshape(len(ids), height, width).astype(jnp.float32)
    back = invert(view)
    good = jnp.isfinite(maps).all((1, 2)) & jnp.isfinite(back).all((1, 2))
    made = resample(maps.clip(-_LARGEST, _LARGEST), back)
    rows, columns = _inside(back[:, 0], height), _inside(back[:, 1], width)
    stored, written = _rows(bank, ids)
    seen = rows[:, :, None] & columns[:, None] | (written < 0)[:, None, None]
    after = jnp.where(seen, made.astype(stored.dtype), stored)
    places = _one_row_each(ids, good, count)
    return Bank(
        bank.relevance.at[places].set(after, mode="drop", unique_indices=True),
        bank.written.at[places].set(step, mode="drop", unique_indices=True),
    )


def _rows(bank: Bank, ids: Int[Array, " B"]) -> Bank:
    """What the bank has of some examples; of others what an empty one has."""
    # A negative index would count from the end.
    ids = jnp.where(ids < 0, len(bank.written), ids)
    return Bank(
        bank.relevance.at[ids].get(mode="fill", fill_value=0),
        bank.written.at[ids].get(mode="fill", fill_value=-1),
    )


def _one_row_each(
    ids: Int[Array, " B"], good: Bool[Array, " B"], count: int
) -> Int[Array, " B"]:
    """Where to write each row: its id, or beyond the bank if it is not to be written.

    Left to the scatter, two rows of one id could be mixed token by token.
    """
    row = jnp.arange(len(ids), dtype=jnp.int32)
    later = (ids[:, None] == ids) & (row[:, None] < row) & good
    there = (ids >= 0) & (ids < count)
    return jnp.where(good & there & ~later.any(1), ids, count + row)


def _source(axis: Float[Array, "B 2"], size: int) -> Float[Array, "B n"]:
    """Where the centres of the tokens lie in the frame of the map, in tokens.

    Centre k of the map is at k + 1/2. In tokens rather than shares of the axis, as
    then no division spoils the identity and the flip.
    """
    centre = jnp.arange(size, dtype=jnp.float32) + 0.5
    return axis[:, :1] * size + axis[:, 1:] * centre


def _weights(axis: Float[Array, "B 2"], size: int) -> Float[Array, "B n n"]:
    """Share of each token of the map (last axis) in each one shown."""
    place = jnp.clip(_source(axis.astype(jnp.float32), size) - 0.5, 0, size - 1)
    distance = jnp.abs(place[:, :, None] - jnp.arange(size, dtype=jnp.float32))
    return jnp.maximum(1 - distance, 0)


def _inside(axis: Float[Array, "B 2"], size: int) -> Bool[Array, "B n"]:
    """Whether the centre of each token lies in the frame of the map."""
    place = _source(axis.astype(jnp.float32), size)
    return (place >= 0) & (place <= size)
