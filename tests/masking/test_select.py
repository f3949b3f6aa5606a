"""Scores to masks: the authors' rule, ties, NaN, padding, gradients."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import select
from tests.masking.generators import assert_valid, properties

wild_scores = hnp.arrays(
    np.float32,
    (3, 12),
    elements=st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan]),
        st.integers(-1000, 1000).map(lambda number: number / 8),
    ),
)


def test_it_is_the_authors_rule_for_the_authors_noise():
    noise = np.random.default_rng(0).random((5, 196), dtype=np.float32)
    mask = select(jnp.asarray(noise), 49)
    shuffle = np.argsort(noise, axis=1)
    restore = np.argsort(shuffle, axis=1)
    authors = np.ones((5, 196))
    authors[:, :49] = 0
    np.testing.assert_array_equal(mask.ids_restore, restore)
    np.testing.assert_array_equal(mask.ids_keep, shuffle[:, :49])
    np.testing.assert_array_equal(
        mask.hidden, np.take_along_axis(authors, restore, axis=1)
    )


@properties
@given(scores=wild_scores, keep=st.integers(0, 12))
def test_every_score_gives_a_valid_mask_with_nan_hidden_first(scores, keep):
    mask = jax.tree.map(np.asarray, select(jnp.asarray(scores), keep))
    assert_valid(mask, keep)
    for row, kept in zip(scores, mask.ids_keep, strict=True):
        expected = np.argsort(row, kind="stable")[:keep]  # NumPy: NaN last too
        np.testing.assert_array_equal(kept, expected)


def test_all_nan_keeps_the_first_tokens():
    mask = select(jnp.full((1, 6), jnp.nan), 2)
    np.testing.assert_array_equal(mask.ids_restore, [range(6)])


@pytest.mark.parametrize("dtype", ["int32", "bfloat16", "float16", "bool", "uint8"])
def test_ties_keep_the_lower_index_in_any_dtype(dtype):
    scores = jnp.asarray([[1, 0, 1, 0, 1, 0]]).astype(dtype)
    mask = select(scores, 4)
    np.testing.assert_array_equal(mask.ids_keep, [[1, 3, 5, 0]])
    np.testing.assert_array_equal(mask.hidden, [[0, 0, 1, 0, 1, 0]])


def test_unshuffle_puts_every_token_back():
    tokens = jax.random.normal(jax.random.key(0), (2, 10, 3))
    mask = select(jax.random.normal(jax.random.key(1), (2, 10)), 4)
    kept = jnp.take_along_axis(tokens, mask.ids_keep[..., None], 1)
    filled = jnp.concatenate([kept, jnp.full((2, 6, 3), 7.0)], 1)
    whole = jnp.take_along_axis(filled, mask.ids_restore[..., None], 1)
    expected = jnp.where(mask.hidden[..., None] == 1, 7.0, tokens)
    np.testing.assert_array_equal(whole, expected)


def test_counts_that_vary_pad_the_kept_slots():
    scores = jax.random.normal(jax.random.key(0), (6, 10))
    count = jnp.asarray([0, 1, 3, 4, 9, -2])
    mask = jax.jit(lambda s, c: select(s, 4, count=c))(scores, count)
    clipped = np.clip(count, 0, 4)
    np.testing.assert_array_equal(mask.hidden.sum(1), 10 - clipped)
    np.testing.assert_array_equal(mask.keep_valid.sum(1), clipped)
    np.testing.assert_array_equal(mask.keep_valid, np.arange(4) < clipped[:, None])
    shown = np.take_along_axis(np.asarray(mask.hidden), np.asarray(mask.ids_keep), 1)
    np.testing.assert_array_equal(shown == 0, mask.keep_valid)
    full = select(scores, 4)
    np.testing.assert_array_equal(mask.ids_restore, full.ids_restore)
    np.testing.assert_array_equal(mask.ids_keep, full.ids_keep)


def test_no_gradient_reaches_the_scores():
    def total(scores):
        mask = select(scores, 3)
        kept = jnp.take_along_axis(jnp.ones((2, 8)), mask.ids_keep, 1)
        return (mask.hidden * mask.gate * mask.loss_weight).sum() + kept.sum()

    scores = jax.random.normal(jax.random.key(0), (2, 8))
    np.testing.assert_array_equal(jax.grad(total)(scores), jnp.zeros((2, 8)))


def test_ids_stay_32_bit_when_64_bit_is_on():
    with jax.enable_x64(True):
        mask = select(jnp.linspace(0.0, 1.0, 6)[None], 2)
    assert mask.ids_keep.dtype == mask.ids_restore.dtype == jnp.int32
    assert mask.hidden.dtype == jnp.float32


@pytest.mark.parametrize(
    "shape, keep, word",
    [((4,), 2, "axes"), ((2, 3, 4), 2, "axes"), ((2, 4), 5, "4"), ((2, 4), -1, "4")],
)
def test_bad_arguments_are_named(shape, keep, word):
    with pytest.raises(ValueError, match=word):
        select(jnp.zeros(shape), keep)
