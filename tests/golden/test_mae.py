"""Loss, outputs, gradients and five AdamW steps of the authors' code."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.masking import num_keep, select
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.optimizer import decay_mask
from tests.golden.authors import load
from tests.golden.conversion import from_theirs, to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files

pytestmark = pytest.mark.parametrize("path", files("mae", "out/adamw_losses"))


@functools.cache
def setup(path):
    """(fixture, mask, params, loss function returning (loss, prediction))."""
    fixture = Fixture(path)
    meta = fixture.meta
    images = fixture["in/images_nchw"]
    model, params = load(
        fixture.under("param/"),
        fixture.under("grad/"),
        images,
        meta["heads"],
        meta["dheads"],
    )
    images = jnp.asarray(images.transpose(0, 2, 3, 1))
    noise = jnp.asarray(fixture["in/noise"])
    mask = select(noise, num_keep(noise.shape[1], meta["mask_ratio"]))
    target = pixel_targets(images, model.patch_size, norm_pix=meta["norm_pix_loss"])

    @jax.jit
    def loss(params):
        prediction = model.predict(params, model.embed(params, images), mask)
        return reconstruction_loss(prediction.tokens, target, mask.loss_weight), (
            prediction
        )

    return fixture, mask, jax.tree.map(jnp.asarray, params), loss


def test_mask(path):
    fixture, mask, _, _ = setup(path)
    np.testing.assert_array_equal(mask.hidden, fixture["out/mask"])
    np.testing.assert_array_equal(mask.ids_restore, fixture["out/ids_restore"])


def test_loss_and_outputs(path):
    fixture, _, params, loss = setup(path)
    value, prediction = loss(params)
    np.testing.assert_allclose(value, fixture["out/loss"], rtol=1e-5)
    assert_output(prediction.latent, fixture["out/latent"])
    assert_output(prediction.tokens, fixture["out/pred"])


def test_gradient_of_every_parameter(path):
    fixture, _, params, loss = setup(path)
    theirs = fixture.under("grad/")
    gradients, _ = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert_gradients(to_theirs(gradients, theirs), theirs)


def test_adamw_losses(path):
    fixture, _, params, loss = setup(path)
    meta = fixture.meta
    trained = from_theirs(fixture.under("grad/"))
    leaves = dict(jax.tree_util.tree_leaves_with_path(trained))
    labels = jax.tree_util.tree_map_with_path(
        lambda place, _: "trained" if place in leaves else "fixed", params
    )
    adamw = optax.adamw(
        meta["lr"],
        *meta["betas"],
        weight_decay=meta["weight_decay"],
        mask=decay_mask,
    )
    optimizer = optax.multi_transform(
        {"trained": adamw, "fixed": optax.set_to_zero()}, labels
    )

    @jax.jit
    def step(params, state):
        (value, _), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state = jax.jit(optimizer.init)(params)
    losses = []
    for _ in fixture["out/adamw_losses"]:
        params, state, value = step(params, state)
        losses.append(float(value))
    np.testing.assert_allclose(losses, fixture["out/adamw_losses"], rtol=1e-5)
