"""Soft samples as hard masks: values, gradients, and how often a token is hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import boosted_mask, gumbel_softmax

KEY = jax.random.key(3)
TOKENS, KEPT = 196, 49


def draw(count, tokens=TOKENS):
    first, second = jax.random.split(KEY)
    sample = jax.nn.softmax(jax.random.normal(first, (count, tokens)))
    return sample, jax.random.uniform(second, (count, tokens))


def top(sample, count):
    order = np.argsort(-np.asarray(sample), axis=1, kind="stable")
    found = np.zeros(sample.shape, bool)
    np.put_along_axis(found, order[:, :count], True, 1)
    return found


@pytest.mark.parametrize(("boost", "share"), [(0.5, 0.0), (0.25, 0.06), (0.1, 0.17)])
def test_how_often_a_boosted_token_stays_visible(boost, share):
    """Shares counted by others on 20,000 draws; at 0.5 it never happens."""
    sample, noise = draw(20_000)
    mask = boosted_mask(sample, noise, num_keep=KEPT, boost=boost)
    boosted = top(sample, KEPT)
    visible = 1 - np.asarray(mask.hidden)[boosted].mean()
    assert visible == 0 if share == 0 else abs(visible - share) < 0.01
    assert (np.asarray(mask.hidden).sum(1) == TOKENS - KEPT).all()


def test_without_boost_only_the_noise_decides():
    sample, noise = draw(50)
    mask = boosted_mask(sample, noise, num_keep=KEPT, boost=0.0)
    np.testing.assert_array_equal(
        np.sort(mask.ids_keep, 1), np.sort(np.argsort(noise, 1)[:, :KEPT], 1)
    )


def test_the_gate_is_one_and_hands_on_the_gradient():
    """boost * <d loss / d z_i, z_i> where token i is visible, else 0."""
    sample, noise = draw(3, tokens=12)
    z = jax.random.normal(KEY, (3, 12, 5))
    weight = jax.random.normal(jax.random.key(8), (3, 4, 5))

    def loss(sample, z):
        mask = boosted_mask(sample, noise, num_keep=4, boost=0.3)
        gated = z * mask.gate[..., None]
        kept = jnp.take_along_axis(gated, mask.ids_keep[..., None], axis=1)
        return jnp.sum(jnp.sin(kept) * weight)

    mask = boosted_mask(sample, noise, num_keep=4, boost=0.3)
    np.testing.assert_array_equal(mask.gate, 1.0)
    of_sample, of_z = jax.grad(loss, (0, 1))(sample, z)
    np.testing.assert_allclose(of_sample, 0.3 * (of_z * z).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(of_sample != 0, mask.hidden == 0)


def test_gumbel_softmax():
    logits = jax.random.normal(KEY, (4, 9))
    gumbel = jax.random.gumbel(jax.random.key(1), (4, 9))
    sample = gumbel_softmax(logits, gumbel, 1.0)
    np.testing.assert_allclose(sample.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(
        sample, gumbel_softmax(logits + 7, gumbel, 1.0), rtol=1e-4
    )
    cold = gumbel_softmax(logits, gumbel, 1e-3)
    np.testing.assert_array_equal(cold.argmax(1), (logits + gumbel).argmax(1))
    np.testing.assert_allclose(cold.max(1), 1.0, atol=1e-3)
    rows = jnp.tile(logits[:1], (20_000, 1))
    noise = jax.random.gumbel(jax.random.key(2), rows.shape)
    first = np.bincount(gumbel_softmax(rows, noise, 1.0).argmax(1), minlength=9)
    np.testing.assert_allclose(first / 20_000, jax.nn.softmax(logits[0]), atol=0.015)
