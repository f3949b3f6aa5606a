"""The classification head: its parts in plain NumPy, dropout, and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.models.head import ClassificationHead, cross_entropy

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def features():
    return 3 + 2 * jax.random.normal(KEY, (5, 8))


@pytest.fixture(scope="module")
def params(features):
    fresh = ClassificationHead(4).init(KEY, features)["params"]
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.ones_like(leaf), fresh)


def test_logits_are_those_of_numpy(features, params):
    x = np.asarray(features, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * np.asarray(params["norm"]["scale"]) + np.asarray(params["norm"]["bias"])
    wanted = x @ np.asarray(params["linear"]["kernel"])
    wanted = wanted + np.asarray(params["linear"]["bias"])
    found = ClassificationHead(4).apply({"params": params}, features)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_it_starts_small_and_without_preference():
    fresh = ClassificationHead(50).init(KEY, jnp.zeros((1, 200)))["params"]
    kernel = np.asarray(fresh["linear"]["kernel"])
    # A normal distribution cut off at two deviations has 0.88 of its deviation.
    np.testing.assert_allclose(kernel.std(), 0.88 * 0.02, rtol=0.02)
    assert np.abs(kernel).max() <= 0.04
    assert (fresh["linear"]["bias"] == 0).all()


def test_half_precision_in_and_float32_out(features, params):
    half = features.astype(jnp.bfloat16)
    found = ClassificationHead(4).apply({"params": params}, half)
    exact = ClassificationHead(4).apply({"params": params}, half.astype(jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, exact)


def test_dropout_acts_only_where_it_is_asked_for(features, params):
    head = ClassificationHead(4, dropout=0.5)
    still = head.apply({"params": params}, features)
    none = ClassificationHead(4).apply({"params": params}, features)
    np.testing.assert_array_equal(still, none)

    def dropped(key):
        rngs = {"dropout": key}
        return head.apply({"params": params}, features, deterministic=False, rngs=rngs)

    many = jax.vmap(dropped)(jax.random.split(KEY, 4000))
    assert float(many.std(0).min()) > 0
    error = np.asarray(many.std(0)) / np.sqrt(4000)
    assert (np.abs(many.mean(0) - still) < 4.5 * error).all()


def test_cross_entropy_in_closed_form():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    labels = jnp.array([0, 2])
    plain = -(np.log(0.7) + np.log(0.5)) / 2
    np.testing.assert_allclose(cross_entropy(logits, labels), plain, rtol=1e-6)
    even = -np.mean(np.asarray(logits))
    found = cross_entropy(logits, labels, smoothing=0.3)
    np.testing.assert_allclose(found, 0.7 * plain + 0.3 * even, rtol=1e-6)
