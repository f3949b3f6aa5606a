"""MAE with the labels' loss beside it: two losses, their gradients, and the price."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods.cases import batch_of, build, gradients, start, stepper, tiny_config

STEP = jnp.int32(0)
CLASSES = 3


@pytest.fixture(scope="module")
def batch():
    return {**batch_of(), "label": np.arange(16, dtype=np.int32) % CLASSES}


def method_of(**own):
    fields = {f"method__{name}": value for name, value in own.items()}
    return build(tiny_config("supervised_mae", **fields), classes=CLASSES)


@pytest.fixture(scope="module")
def state():
    return start(method_of())


@pytest.fixture(scope="module")
def of_mae(state, batch):
    return gradients(build(tiny_config()), 0, state, batch, STEP, 0.75)


def cross_entropy(method, batch):
    """Written out, through the method's own logits of the whole images."""

    def loss(params):
        logits = jax.nn.log_softmax(method.logits(params, batch["image"]))
        return -logits[jnp.arange(16), batch["label"]].mean()

    return jax.jit(jax.value_and_grad(loss))


def close(found, wanted):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale),
        found,
        wanted,
    )


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_the_gradient_is_that_of_both_losses(pool, state, batch, of_mae):
    method = method_of(weight=0.7, pool=pool)
    grads, metrics = gradients(method, 0, state, batch, STEP, 0.75)
    value, of_labels = cross_entropy(method, batch)(state.params)
    mae_grads, mae_metrics = of_mae
    wanted = jax.tree.map(
        lambda a, b: a + 0.7 * b, mae_grads["model"], of_labels["model"]
    )
    close(grads["model"], wanted)
    close(grads["head"], jax.tree.map(lambda leaf: 0.7 * leaf, of_labels["head"]))
    total = mae_metrics["loss"] + 0.7 * value
    for name, number in (
        ("loss", total),
        ("cross_entropy", value),
        ("reconstruction", mae_metrics["loss"]),
    ):
        np.testing.assert_allclose(metrics[name], number, rtol=1e-5, err_msg=name)
    right = method.logits(state.params, batch["image"]).argmax(-1) == batch["label"]
    np.testing.assert_allclose(metrics["accuracy"], right.mean(), rtol=1e-6)
    # The labels reach the encoder, and no further.
    norms = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), of_labels["model"])
    assert max(jax.tree.leaves(norms["encoder"])) > 0
    assert max(jax.tree.leaves(norms["decoder"])) == 0


def test_without_weight_it_is_mae(state, batch, of_mae):
    grads, metrics = gradients(method_of(weight=0.0), 0, state, batch, STEP, 0.75)
    close(grads["model"], of_mae[0]["model"])
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["head"]))
    np.testing.assert_allclose(metrics["loss"], of_mae[1]["loss"], rtol=1e-6)


def test_it_learns_the_labels_and_shows_what_mae_shows(state, batch):
    method = method_of(weight=3.0)
    now, step = state, stepper(method)
    for _ in range(10):
        now, metrics = step(now, {"train": batch}, 0.75)
    _, first = gradients(method, 0, state, batch, STEP, 0.75)
    assert float(metrics["cross_entropy"]) < 0.9 * float(first["cross_entropy"])
    key = jax.random.wrap_key_data(state.key)
    own, mae = (
        jax.jit(one.picture, static_argnums=4)(state.params, batch, key, STEP, 0.75)
        for one in (method, build(tiny_config()))
    )
    jax.tree.map(np.testing.assert_array_equal, own, mae)
    assert own.hidden.sum(1).tolist() == [18] * 16


def test_a_step_costs_the_whole_images_too():
    """Forward and backward: what fine-tuning on them costs, on top of MAE."""
    method, mae = method_of(), build(tiny_config())
    finetune = build(tiny_config("finetune"), classes=CLASSES)
    assert method.flops(0.75) == mae.flops(0.75) + finetune.flops(())
    # 24 patches of 48 values to 32; two blocks of 25 tokens: dense and attention.
    forward = 24 * 48 * 32 + 2 * (25 * 12 * 32**2 + 2 * 25**2 * 32)
    assert finetune.flops(()) == 3 * 2 * forward
