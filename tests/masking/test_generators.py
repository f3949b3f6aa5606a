"""What holds for every generator, grid, ratio and batch."""

import jax
import numpy as np
import pytest
from hypothesis import given

from sgmae_jax.masking import Context, check_mask_fn, num_keep
from tests.masking.generators import (
    GENERATORS,
    assert_valid,
    grids,
    keys_of,
    make,
    properties,
    ratios,
    seeds,
)

every_generator = pytest.mark.parametrize("name", GENERATORS)


@every_generator
@properties
@given(grid=grids, ratio=ratios, seed=seeds)
def test_exactly_the_asked_for_number_is_hidden(name, grid, ratio, seed):
    mask = make(name, keys_of(seed, range(3)), grid, ratio)
    assert mask.hidden.shape == (3, grid[0] * grid[1])
    assert_valid(mask, num_keep(grid[0] * grid[1], ratio))


@every_generator
@pytest.mark.parametrize("batch", [1, 3])
def test_an_example_does_not_know_its_batch(name, batch):
    ids = np.arange(8)
    whole = make(name, keys_of(3, ids), (14, 14), 0.75)
    order = np.random.default_rng(batch).permutation(8)[:batch]
    part = make(name, keys_of(3, ids[order]), (14, 14), 0.75)
    for one, two in zip(whole[:5], part[:5], strict=True):
        np.testing.assert_array_equal(one[order], two)


@every_generator
def test_the_checker_accepts_it(name):
    check_mask_fn(GENERATORS[name], grid=(14, 14), ratio=0.75)


@pytest.mark.parametrize("name", [n for n in GENERATORS if n != "grid"])
def test_examples_and_seeds_differ(name):
    first = make(name, keys_of(0, range(64)), (14, 14), 0.75).hidden
    other = make(name, keys_of(1, range(64)), (14, 14), 0.75).hidden
    assert len(np.unique(first, axis=0)) > 1
    assert not np.array_equal(first, other)


def test_random_masks_hide_every_token_equally_often():
    examples, ratio, grid = 4096, 0.75, (6, 8)
    hidden = make("random", keys_of(0, range(examples)), grid, ratio).hidden
    # Binomial counts: five standard deviations are never passed by chance.
    spread = np.sqrt(ratio * (1 - ratio) / examples)
    assert np.abs(hidden.mean(0) - ratio).max() < 5 * spread
    assert len(np.unique(hidden, axis=0)) == examples


@every_generator
@pytest.mark.parametrize(
    "keys, word",
    [
        (np.zeros((2, 2), np.uint32), "jax.random.key"),
        (lambda: jax.random.split(jax.random.PRNGKey(0), 2), "wrap_key_data"),
        (lambda: jax.random.split(jax.random.key(0, impl="rbg"), 2), "threefry2x32"),
    ],
)
def test_keys_that_would_tie_examples_together_are_refused(name, keys, word):
    keys = keys() if callable(keys) else keys
    with pytest.raises(TypeError, match=word):
        GENERATORS[name](keys, Context(grid=(4, 4)), ratio=0.5)


@every_generator
@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_out_of_range_are_refused(name, ratio):
    with pytest.raises(ValueError, match="ratio"):
        GENERATORS[name](keys_of(0, range(2)), Context(grid=(4, 4)), ratio=ratio)
