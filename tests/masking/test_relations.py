"""Cosines and attention between tokens, against float64 and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import attention_relations, cosine_relations
from tests.masking.generators import properties, seeds


def maps(seed, images=2, heads=3, tokens=5):
    """Attention with rows that sum to 1, class token first."""
    scores = np.random.default_rng(seed).standard_normal(
        (images, heads, 1 + tokens, 1 + tokens)
    )
    return np.asarray(jax.nn.softmax(2 * scores), np.float64)


@properties
@given(seed=seeds)
def test_cosines_are_those_of_float64(seed):
    x = np.random.default_rng(seed).standard_normal((2, 6, 24)).astype(np.float32)
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    found = np.asarray(cosine_relations(jnp.asarray(x)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit @ unit.swapaxes(1, 2), atol=1e-6)
    np.testing.assert_allclose(found, found.swapaxes(1, 2), atol=1e-6)
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2), 1, atol=1e-6)
    assert np.abs(found).max() <= 1 + 1e-6


@properties
@given(seed=seeds, exponent=st.integers(-100, 100))
def test_each_token_has_a_unit_of_its_own(seed, exponent):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 6, 24)).astype(np.float32)
    scaled = x.copy()
    scaled[:, 2] *= 2.0**exponent  # a power of two: exact
    np.testing.assert_array_equal(
        cosine_relations(jnp.asarray(x)), cosine_relations(jnp.asarray(scaled))
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e36])
def test_no_square_leaves_float32(scale):
    x = jax.random.normal(jax.random.key(0), (1, 8, 32))
    np.testing.assert_allclose(
        cosine_relations(x * scale), cosine_relations(x), atol=1e-6
    )


def test_by_hand():
    x = jnp.asarray([[[3.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]]])
    half = 0.5**0.5
    expected = [[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(cosine_relations(x), [expected], atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_features_are_widened_first(dtype):
    x = jax.random.normal(jax.random.key(0), (2, 6, 24)).astype(dtype)
    found = cosine_relations(x)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, cosine_relations(x.astype(jnp.float32)))


@properties
@given(seed=seeds)
def test_attention_is_the_formula_in_float64(seed):
    attention = maps(seed)
    inner = attention.mean(1)[:, 1:, 1:]
    inner = inner / inner.sum(-1, keepdims=True)
    found = np.asarray(attention_relations(jnp.asarray(attention, jnp.float32)))
    np.testing.assert_allclose(found, (inner + inner.swapaxes(1, 2)) / 2, atol=1e-6)
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))
    assert found.dtype == np.float32 and (found >= 0).all()
    np.testing.assert_allclose(found.sum((1, 2)), 5, rtol=1e-5)  # N rows of sum 1


def test_uniform_attention_relates_all_alike():
    found = attention_relations(jnp.full((1, 2, 9, 9), 1 / 9))
    np.testing.assert_allclose(found, np.full((1, 8, 8), 1 / 8), rtol=1e-6)


def test_the_class_token_has_no_part_in_it():
    attention = maps(0)
    other = attention.copy()
    other[:, :, 0] = 0.3  # its own row
    other[:, :, 1:, 0] *= 0.1  # what patches give to it
    one, two = (attention_relations(jnp.asarray(a)) for a in (attention, other))
    np.testing.assert_array_equal(one, two)


def test_a_patch_that_looks_at_the_class_token_alone_is_looked_at_by_others():
    attention = maps(0)
    attention[:, :, 3, 0], attention[:, :, 3, 1:] = 1, 0
    found = attention_relations(jnp.asarray(attention, jnp.float32))
    inner = attention.mean(1)[:, 1:, 1:]
    others = np.arange(5) != 2
    given = (inner[:, :, 2] / np.maximum(inner.sum(-1), 1e-9))[:, others] / 2
    np.testing.assert_allclose(found[:, 2, others], given, atol=1e-6)
    assert np.isfinite(found).all()


def test_one_token():
    np.testing.assert_allclose(cosine_relations(jnp.full((1, 1, 4), -2.0)), [[[1]]])
    np.testing.assert_allclose(
        attention_relations(jnp.full((1, 2, 2, 2), 0.5)), [[[1]]]
    )
