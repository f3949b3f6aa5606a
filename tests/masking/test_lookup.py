"""Looking up by comparison gives what indexing gives."""

import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking.lookup import look_up
from tests.masking.generators import properties


@properties
@given(
    table=hnp.arrays(
        np.int32,
        st.sampled_from([(1,), (6,), (4, 3)]),
        elements=st.integers(-3, 10_000),
    ),
    shape=st.sampled_from([(), (5,), (2, 3)]),
    seed=st.integers(0, 100),
)
def test_it_is_indexing(table, shape, seed):
    index = np.random.default_rng(seed).integers(0, len(table), shape)
    for kind in (np.int32, np.uint32):
        found = look_up(table, jnp.asarray(index, kind))
        np.testing.assert_array_equal(found, table[index])
