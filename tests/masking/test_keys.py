"""Keys follow from root, epoch, purpose and example id; from nothing else."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import example_keys
from tests.masking.generators import properties, seeds


@properties
@given(
    seed=seeds,
    epoch=st.integers(0, 10_000),
    example=st.integers(0, 2**31 - 1),
    purpose=st.sampled_from(["mask", "hints", "Gumbel", ""]),
)
def test_the_chain_of_folds(seed, epoch, example, purpose):
    key = jax.random.key(seed)
    made = example_keys(
        key, jnp.asarray([0, epoch]), jnp.asarray([7, example]), purpose
    )
    label = np.uint32(zlib.crc32(purpose.encode()))
    expected = jax.random.fold_in(key, epoch)
    expected = jax.random.fold_in(jax.random.fold_in(expected, label), example)
    np.testing.assert_array_equal(
        jax.random.key_data(made[1]), jax.random.key_data(expected)
    )


def test_each_part_changes_the_keys():
    def data(seed=0, epoch=1, example=2, purpose="mask"):
        keys = example_keys(
            jax.random.key(seed), jnp.asarray([epoch]), jnp.asarray([example]), purpose
        )
        return tuple(np.asarray(jax.random.key_data(keys))[0])

    all_keys = {
        data(),
        data(seed=1),
        data(epoch=2),
        data(example=3),
        data(purpose="hints"),
        data(epoch=2, example=1),
    }
    assert len(all_keys) == 6


def test_the_same_under_jit_and_for_numpy_ids():
    ids, epoch = np.arange(5, dtype=np.int32), np.zeros(5, np.int32)
    key = jax.random.key(0)
    plain = example_keys(key, epoch, ids, "mask")
    jitted = jax.jit(lambda e, i: example_keys(key, e, i, "mask"))(epoch, ids)
    assert (plain == jitted).all()


def test_untyped_keys_are_refused():
    with pytest.raises(TypeError, match="typed keys"):
        example_keys(jax.random.PRNGKey(0), jnp.zeros(1), jnp.zeros(1), "mask")
