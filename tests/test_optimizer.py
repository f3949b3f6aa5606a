"""Schedule, decay mask and AdamW against closed forms."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.optimizer import decay_mask, learning_rate, make_adamw, warmup_cosine


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0.0, 0.0), (2.0, 0.1), (4.0, 0.2), (7.0, 0.11), (10.0, 0.02), (12.0, 0.02)],
)
def test_warmup_is_linear_from_zero_and_the_rest_half_a_cosine(epoch, rate):
    schedule = warmup_cosine(0.2, 4, 10, 0.02)
    np.testing.assert_allclose(schedule(epoch), rate, rtol=1e-6)


def test_no_warmup_starts_at_the_peak():
    np.testing.assert_allclose(warmup_cosine(0.2, 0, 10)(0), 0.2, rtol=1e-6)


def test_biases_and_norm_scales_do_not_decay_but_tokens_do():
    params = {
        "blocks": {"norm1": {"scale": jnp.ones((4, 3)), "bias": jnp.ones((4, 3))}},
        "fc1": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)},
        "cls_token": jnp.ones((1, 1, 3)),
        "mask_token": jnp.ones((1, 1, 3)),
    }
    assert decay_mask(params) == {
        "blocks": {"norm1": {"scale": False, "bias": False}},
        "fc1": {"kernel": True, "bias": False},
        "cls_token": True,
        "mask_token": True,
    }


def test_adamw_follows_the_fractional_epoch_and_the_batch():
    config = default_config()
    config.optim.base_lr, config.optim.warmup_epochs = 1e-3, 2
    tx = make_adamw(config.optim, batch_size=512, steps_per_epoch=4, total_steps=40)
    params = {"model": {"kernel": jnp.ones(2)}}
    state, rates = tx.init(params), []
    for _ in range(9):
        _, state = tx.update(params, state, params)
        rates.append(float(learning_rate(state)))
    # Peak 1e-3 * 512 / 256 after two epochs of four steps, from exactly zero.
    np.testing.assert_allclose(rates, 2e-3 * np.arange(9) / 8, rtol=1e-5, atol=1e-12)


def test_clipping_bounds_the_gradient():
    config = default_config()
    config.optim.clip_norm = 1.0
    tx = make_adamw(config.optim, batch_size=256, steps_per_epoch=1, total_steps=10)
    params = {"model": {"kernel": jnp.zeros(4)}}
    _, state = tx.update(
        {"model": {"kernel": jnp.full(4, 50.0)}}, tx.init(params), params
    )
    first_moment = optax.tree.get(state, "mu")["model"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(first_moment), 0.1, rtol=1e-5)
