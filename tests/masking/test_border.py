"""The rule that takes the side away from the image's border for the object."""

import jax
import numpy as np
import pytest

from sgmae_jax.masking import Context, guide, guided_mask

GRID = (6, 8)
KEYS = jax.random.split(jax.random.key(0), 3)


def scenes():
    """Objects inside, at the left edge, and one that surrounds a hole."""
    inside, edge, ring = np.zeros((3, *GRID), bool)
    inside[1:5, 2:6] = True
    edge[1:5, :4] = True
    ring[1:5, 1:7] = True
    ring[2:4, 3:5] = False
    objects = np.stack([inside, edge, ring]).reshape(3, -1)
    rng = np.random.default_rng(0)
    prototypes = rng.standard_normal((3, 2, 32))
    features = np.stack(
        [p[o.astype(int)] for p, o in zip(prototypes, objects, strict=True)]
    )
    return objects, features + 0.1 * rng.standard_normal(features.shape)


def test_the_object_is_the_side_with_less_of_it_at_the_border():
    objects, features = scenes()
    found = guide(features, side="border", grid=GRID)
    np.testing.assert_array_equal(found.object, objects)


def test_mirrored_scenes_have_mirrored_objects():
    objects, features = scenes()
    mirror = np.arange(48).reshape(GRID)[:, ::-1].reshape(-1)
    found = guide(features[:, mirror], side="border", grid=GRID)
    np.testing.assert_array_equal(found.object, objects[:, mirror])


def test_the_context_gives_the_grid():
    objects, features = scenes()
    context = Context(grid=GRID, features=features)
    mask = guided_mask(KEYS, context, ratio=0.75, side="border", hint_ratio=0.0)
    assert (mask.hidden[objects] == 1).all()


@pytest.mark.parametrize("grid", [None, (6, 6)])
def test_without_a_grid_that_fits_there_is_no_border(grid):
    with pytest.raises(ValueError, match="needs the grid of the 48 tokens"):
        guide(scenes()[1], side="border", grid=grid)
