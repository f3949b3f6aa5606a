"""Taking tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import Context, random_mask
from sgmae_jax.models.tokens import take_tokens


@pytest.fixture(name="mask")
def _mask():
    keys = jax.random.split(jax.random.key(0), 3)
    return random_mask(keys, Context(grid=(4, 4)), ratio=0.75)


def test_takes_what_numpy_takes(mask):
    x = np.random.default_rng(0).normal(size=(3, 16, 5)).astype(np.float32)
    for ids in (mask.ids_keep, mask.ids_restore):
        wanted = np.take_along_axis(x, np.asarray(ids)[..., None], axis=1)
        np.testing.assert_array_equal(take_tokens(x, ids, mask), wanted)


def test_the_gradient_adds_where_slots_are_padded(mask):
    """The same token in two slots gets both of their gradients."""
    twice = mask.ids_keep.at[:, 1].set(mask.ids_keep[:, 0])
    padded = mask._replace(ids_keep=twice, keep_valid=jnp.ones(twice.shape, bool))
    x = jnp.ones((3, 16, 5))
    slope = jax.grad(lambda x: take_tokens(x, twice, padded).sum())(x)
    wanted = np.zeros((3, 16, 5))
    for row, ids in enumerate(np.asarray(twice)):
        for number in ids:
            wanted[row, number] += 1
    assert wanted.max() == 2
    np.testing.assert_array_equal(slope, wanted)


def test_the_gradient_knows_that_ids_are_unique(mask):
    def lowered(mask):
        slope = jax.grad(lambda x: (take_tokens(x, mask.ids_keep, mask) ** 2).sum())
        return jax.jit(slope).lower(jnp.ones((3, 16, 5))).as_text()

    padded = mask._replace(keep_valid=jnp.ones(mask.ids_keep.shape, bool))
    assert "unique_indices = true" in lowered(mask)
    assert "unique_indices = true" not in lowered(padded)


def test_an_id_outside_gives_nan(mask):
    x = jnp.ones((3, 16, 5))
    taken = take_tokens(x, mask.ids_keep.at[1, 0].set(16), mask)
    assert np.isnan(taken[1, 0]).all() and np.isfinite(taken[0]).all()
