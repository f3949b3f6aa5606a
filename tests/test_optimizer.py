"""Schedule, decay mask, AdamW and LARS against closed forms."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.optimizer import (
    decay_mask,
    learning_rate,
    make_adamw,
    make_lars,
    warmup_cosine,
)


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


def test_further_leaves_are_spared_by_name():
    params = {"cls_token": jnp.ones(3), "kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    spared = decay_mask(params, ("cls_token",))
    assert spared == {"cls_token": False, "kernel": True, "bias": False}


def lars_steps(rates, momentum, params, grads, trust=0.5):
    """LARS written out: trust ratio, then momentum, then the rate."""
    params, held = dict(params), {name: 0.0 for name in params}
    for rate in rates:
        for name, grad in grads.items():
            if name == "kernel":
                norm = np.linalg.norm(params[name]) / np.linalg.norm(grad)
                grad = trust * norm * grad
            held[name] = momentum * held[name] + grad
            params[name] = params[name] - rate * held[name]
    return params


def test_lars_has_its_rate_outside_of_the_momentum():
    """While the rate moves, the order of the two shows."""
    config = default_config()
    config.optim.base_lr, config.optim.warmup_epochs = 0.2, 2
    config.optim.weight_decay = 0.0
    lars = make_lars(
        config.optim,
        momentum=0.9,
        trust=0.5,
        batch_size=512,
        steps_per_epoch=4,
        total_steps=40,
    )
    params = {"kernel": np.float32([[1, -2], [3, 0.5]]), "bias": np.float32([1, 2])}
    grads = {"kernel": np.float32([[0.1, 0.2], [-0.3, 0]]), "bias": np.float32([1, 0])}
    state, found, rates = lars.init(params), params, []
    for _ in range(8):
        change, state = lars.update(grads, state, found)
        found = optax.apply_updates(found, change)
        rates.append(float(learning_rate(state)))
    np.testing.assert_allclose(rates, 0.4 * np.arange(8) / 8, rtol=1e-5, atol=1e-12)
    wanted = lars_steps(rates, 0.9, params, grads)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_lars_may_be_clipped():
    config = default_config()
    config.optim.clip_norm, config.optim.weight_decay = 1.0, 0.0
    given = {"batch_size": 256, "steps_per_epoch": 1, "total_steps": 10}
    lars = make_lars(config.optim, momentum=0.9, trust=1e-3, **given)
    params = {"bias": jnp.zeros(4)}
    change, state = lars.update({"bias": jnp.full(4, 50.0)}, lars.init(params), params)
    rate = learning_rate(state)
    np.testing.assert_allclose(jnp.linalg.norm(change["bias"]), rate, rtol=1e-5)
