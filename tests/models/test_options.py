"""Options that must not change the function: scan, remat, attention, dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import select
from sgmae_jax.models import Encoder
from tests.models.tiny import (
    autoencoder,
    encode,
    images_for,
    noisy,
    predict,
    scores_for,
)


def outcome(params, **options):
    """(loss, gradient) of a model with options."""
    model = autoencoder(**options)
    images = images_for(model)
    mask = select(scores_for(model), 5)

    def loss(params):
        got = model.predict(params, model.embed(params, images), mask)
        return jnp.square(got.tokens).mean() + got.latent.astype(jnp.float32).std()

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def plain(params):
    return outcome(params)


@pytest.mark.parametrize(
    "options",
    [
        {"unroll": 2},
        {"unroll": 99},
        {"remat": "dots"},
        {"remat": "full"},
        {"remat": "full", "unroll": 3},
        {"attention": "xla"},
    ],
    ids=str,
)
def test_same_function(params, plain, options):
    value, gradient = outcome(params, **options)
    np.testing.assert_allclose(value, plain[0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6),
        gradient,
        plain[1],
    )


def test_same_start(start):
    other = autoencoder(unroll=3, remat="full").init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, other, start)


def saved_values(remat):
    """Number of values that the backward pass keeps."""
    model = autoencoder(depth=4, remat=remat)
    images = images_for(model, batch=16)

    def loss(params):
        return jnp.square(model.encode(params, images).patches).mean()

    _, backward = jax.eval_shape(
        lambda p: jax.vjp(loss, p), jax.eval_shape(model.init, jax.random.key(0))
    )
    return sum(leaf.size for leaf in jax.tree.leaves(backward))


def test_remat_keeps_less():
    assert saved_values("full") < saved_values("dots") < saved_values("none")


def test_unrolled_has_no_loop():
    def text(unroll):
        model = autoencoder(unroll=unroll)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        return jax.jit(model.encode).lower(shapes, images_for(model)).as_text()

    assert "stablehlo.while" in text(1)
    assert "stablehlo.while" not in text(3)


def test_maps_are_the_same_for_library_attention(model, params):
    other = autoencoder(attention="xla")
    images = images_for(model)
    ours, theirs = (
        encode(m, params, images, capture=("attention",)) for m in (model, other)
    )
    np.testing.assert_allclose(
        ours.captured["attention"], theirs.captured["attention"], atol=1e-6
    )
    np.testing.assert_allclose(ours.cls, theirs.cls, atol=1e-6)


def test_library_attention_respects_padding(model, params):
    other = autoencoder(attention="xla")
    images = images_for(model)
    for slots in (6, 7):  # an odd and an even number of tokens with the class token
        mask = select(scores_for(model), slots, count=jnp.asarray([2, 6]))
        ours, theirs = (predict(m, params, images, mask).tokens for m in (model, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_cudnn_is_accepted_in_half_precision():
    encoder = Encoder(
        grid=(2, 2),
        patch_values=4,
        width=8,
        depth=1,
        heads=1,
        attention="cudnn",
        dtype="bfloat16",
    )
    assert encoder.attention == "cudnn"


@pytest.mark.parametrize("attention", ["matmul", "xla"])
def test_bfloat16(params, plain, attention):
    model = autoencoder(dtype="bfloat16", attention=attention)
    images = images_for(model)
    mask = select(scores_for(model), 5)
    got = jax.eval_shape(
        lambda p: predict(model, p, images, mask, capture=("attention",)), params
    )
    assert got.tokens.dtype == got.cls.dtype == jnp.float32
    assert got.latent.dtype == jnp.bfloat16
    assert got.captured["encoder"]["attention"].dtype == jnp.float32
    value, gradient = outcome(params, dtype="bfloat16", attention=attention)
    np.testing.assert_allclose(value, plain[0], rtol=2e-2)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    flat, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (gradient, plain[1])
    )
    cosine = flat @ expected / np.linalg.norm(flat) / np.linalg.norm(expected)
    assert cosine > 0.999


def test_gradient_by_finite_differences_and_forward_mode(params):
    """In float64; also shows that nothing inside falls back to float32."""
    with jax.enable_x64(True):
        model = autoencoder(dtype="float64")
        params = jax.tree.map(
            lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), params
        )
        images = images_for(model, dtype=jnp.float64)
        mask = select(scores_for(model), 5, count=jnp.asarray([3, 5]))

        def loss(params):
            got = model.predict(params, model.embed(params, images), mask)
            return jnp.square(got.tokens).mean() + jnp.square(got.cls).mean()

        direction = noisy(jax.tree.map(jnp.zeros_like, params))
        step = 1e-4

        @jax.jit
        def slopes(params):
            _, forward = jax.jvp(loss, (params,), (direction,))
            products = jax.tree.map(jnp.vdot, jax.grad(loss)(params), direction)
            low, high = jax.lax.map(
                lambda s: loss(jax.tree.map(lambda p, d: p + s * d, params, direction)),
                jnp.asarray([-step, step]),
            )
            difference = (high - low) / (2 * step)
            return difference, forward, sum(jax.tree.leaves(products))

        difference, forward, backward = slopes(params)
        assert difference.dtype == forward.dtype == jnp.float64
        np.testing.assert_allclose(backward, difference, rtol=1e-6)
        np.testing.assert_allclose(forward, backward, rtol=1e-10)
