"""Token maps at points of the image."""

import jax.numpy as jnp
import numpy as np

from sgmae_jax.models.points import (
    centres,
    common_points,
    from_source,
    inside,
    interpolation,
    sample_tokens,
    to_source,
)

GRID = (3, 4)
WHOLE = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
MIRRORED = jnp.array([[[0.0, 1.0], [1.0, -1.0]]])
QUARTER = jnp.array([[[0.5, 0.5], [0.25, 0.5]]])


def ramp():
    """Tokens that hold their own position."""
    return jnp.asarray(centres(GRID))[None]


def test_at_the_centres_tokens_are_themselves():
    points = jnp.asarray(centres(GRID))[None]
    found, share = sample_tokens(ramp(), points, GRID)
    np.testing.assert_allclose(found, ramp(), atol=1e-6)
    np.testing.assert_allclose(share, 1, atol=1e-6)


def test_between_centres_they_are_linear_and_rows_sum_to_one():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.uniform(0.2, 0.8, (1, 9, 2)), jnp.float32)
    found, _ = sample_tokens(ramp(), points, GRID)
    np.testing.assert_allclose(found, points, atol=1e-5)
    anywhere = jnp.asarray(rng.uniform(-1, 2, (1, 9, 2)), jnp.float32)
    np.testing.assert_allclose(interpolation(anywhere, GRID).sum(-1), 1, atol=1e-6)


def test_what_does_not_count_is_left_out():
    weight = jnp.zeros((1, 12)).at[0, 5].set(1)
    points = jnp.asarray([[centres(GRID)[5] + 0.05, centres(GRID)[0]]])
    found, share = sample_tokens(ramp(), points, GRID, weight)
    np.testing.assert_allclose(found[0, 0], centres(GRID)[5], atol=1e-6)
    assert 0 < float(share[0, 0]) < 1 and float(share[0, 1]) == 0
    assert not np.any(found[0, 1])


def test_views_lead_there_and_back():
    points = jnp.asarray(centres(GRID))
    for view in (WHOLE, MIRRORED, QUARTER):
        source = to_source(points, view)
        np.testing.assert_allclose(from_source(source, view)[0], points, atol=1e-6)
    flipped = from_source(to_source(points, WHOLE), MIRRORED)[0]
    np.testing.assert_allclose(flipped, points * jnp.array([1, -1]) + jnp.array([0, 1]))
    assert inside(from_source(to_source(points, WHOLE), QUARTER)).mean() < 0.5


def test_common_points_lie_in_both():
    points, overlap = common_points(MIRRORED, QUARTER, 2)
    np.testing.assert_allclose(
        points[0], [[0.625, 0.375], [0.625, 0.625], [0.875, 0.375], [0.875, 0.625]]
    )
    assert bool(overlap[0]) and bool(inside(from_source(points, MIRRORED)).all())
    beside = jnp.array([[[0.0, 0.5], [0.0, 1.0]]])
    assert not bool(common_points(beside, QUARTER, 2)[1][0])
