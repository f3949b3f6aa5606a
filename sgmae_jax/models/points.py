"""Token maps read at points of the image, as two crops of one image have in common.

Positions run from 0 to 1 along each axis, vertical first; a view (offset, scale) says
where a crop lies in its source image, see `data.augment.Shown`.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def centres(grid: tuple[int, int]) -> Float[np.ndarray, "N 2"]:
    """Positions of the centres of all patches, row by row."""
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    places = np.stack([(y + 0.5) / height, (x + 0.5) / width], -1)
    return places.astype(np.float32)


def to_source(
    points: Float[Array, "*B M 2"], view: Float[Array, "B 2 2"]
) -> Float[Array, "B M 2"]:
    """Positions in a crop as positions in its source image."""
    return view[:, None, :, 0] + view[:, None, :, 1] * points


def from_source(
    points: Float[Array, "*B M 2"], view: Float[Array, "B 2 2"]
) -> Float[Array, "B M 2"]:
    """Positions in the source image as positions in a crop: < 0 or > 1 outside."""
    return (points - view[:, None, :, 0]) / view[:, None, :, 1]


def inside(points: Float[Array, "B M 2"]) -> Bool[Array, "B M"]:
    """Whether positions lie in the image."""
    return ((points >= 0) & (points <= 1)).all(-1)


def common_points(
    first: Float[Array, "B 2 2"], second: Float[Array, "B 2 2"], side: int
) -> tuple[Float[Array, "B M 2"], Bool[Array, " B"]]:
    """A grid of side x side points over what two crops of an image both show.

    Returns:
        Positions in the source image, and whether the crops overlap at all.
    """
    ends = [jnp.stack([v[..., 0], v.sum(-1)], -1) for v in (first, second)]
    low = jnp.maximum(ends[0].min(-1), ends[1].min(-1))
    high = jnp.minimum(ends[0].max(-1), ends[1].max(-1))
    share = jnp.asarray(centres((side, side)))
    points = low[:, None] + share * jnp.maximum(high - low, 0)[:, None]
    return points, (high > low).all(-1)


def interpolation(
    points: Float[Array, "B M 2"], grid: tuple[int, int]
) -> Float[Array, "B M N"]:
    """Bilinear weights of all patches at each point; every row sums to 1.

    Beyond the centres of the outermost patches these count alone, as in RoIAlign.
    """
    rows = []
    for axis, count in enumerate(grid):
        place = jnp.clip(points[..., axis] * count - 0.5, 0, count - 1)
        apart = jnp.abs(place[..., None] - jnp.arange(count))
        rows.append(jnp.maximum(1 - apart, 0))
    both = rows[0][..., :, None] * rows[1][..., None, :]
    return both.reshape(*both.shape[:2], -1)


def sample_tokens(
    tokens: Float[Array, "B N D"],
    points: Float[Array, "B M 2"],
    grid: tuple[int, int],
    weight: Float[Array, "B N"] | None = None,
) -> tuple[Float[Array, "B M D"], Float[Array, "B M"]]:
    """Tokens interpolated at points of their image.

    Args:
        tokens: of all patches.
        points: positions in the image the tokens are of.
        grid: (h, w) in tokens.
        weight: in [0, 1], how much each token counts; None: all alike.

    Returns:
        Tokens at the points, and the share of each point's weight that counts: 0 where
        no token near it does, and the token there is 0.
    """
    near = interpolation(points, grid).astype(tokens.dtype)
    if weight is not None:
        near = near * weight[:, None, :].astype(near.dtype)
    share = near.sum(-1)
    mixed = jnp.einsum("bmn,bnd->bmd", near, tokens)
    return mixed / jnp.where(share > 0, share, 1)[..., None], share
