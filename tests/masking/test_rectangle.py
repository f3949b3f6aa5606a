"""Noisy rectangles: inside the grid, of the right sizes, each from its own key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import rectangle_map, rectangle_maps

KEYS = jax.random.split(jax.random.key(0), 4000)


def insides(grid, **options):
    """Where the rectangles are: the noise is made negligible."""
    maps = rectangle_maps(KEYS, grid, strength=50.0, **options)
    return np.asarray(maps).reshape(-1, *grid) > 1e-12


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (8, 8), (6, 20), (20, 6)])
def test_one_solid_rectangle_inside_the_grid(grid):
    inside = insides(grid)
    rows, columns = inside.any(2), inside.any(1)
    assert (inside == rows[:, :, None] & columns[:, None]).all()
    for line in (rows, columns):  # one run of tokens, not two
        assert (np.diff(line.astype(int), axis=1) == 1).sum(1).max() <= 1
        assert line.any(1).all()
    widths = columns.sum(1)
    low, high = round(grid[1] * 4 / 14), round(grid[1] * 10 / 14)
    assert widths.min() == max(low, 1) and widths.max() == high


def test_sizes_on_the_authors_grid():
    inside = insides((14, 14))
    assert abs(inside.mean() - 0.42) < 0.01
    # Area 40..160 and width 4..10, cut off at the height of the grid.
    assert inside.sum((1, 2)).min() >= 40 and inside.sum((1, 2)).max() <= 140
    assert set(np.unique(inside.any(1).sum(1))) == set(range(4, 11))


def test_maps_are_distributions_and_do_not_know_their_batch():
    maps = rectangle_maps(KEYS[:20], (8, 8))
    np.testing.assert_allclose(maps.sum(1), 1.0, rtol=1e-5)
    assert (maps > 0).all()
    np.testing.assert_array_equal(rectangle_maps(KEYS[5:9], (8, 8)), maps[5:9])
    jitted = jax.jit(lambda keys: rectangle_maps(keys, (8, 8)))(KEYS[:20])
    np.testing.assert_allclose(jitted, maps, rtol=1e-6)


def test_one_rectangle():
    found = rectangle_map(jnp.array([1, 2, 0, 1]), jnp.zeros((2, 3)), strength=1.0)
    raised = np.array([[0, 1, 1], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(found, jax.nn.softmax(raised.ravel()), rtol=1e-6)


def test_raw_keys_are_refused():
    with pytest.raises(TypeError, match="typed keys"):
        rectangle_maps(jnp.zeros((2, 2), jnp.uint32), (8, 8))
