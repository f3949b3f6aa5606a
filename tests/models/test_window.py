"""A decoder whose patches attend to a window, or that has no blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import select
from sgmae_jax.models.decoder import window_pairs
from tests.models.tiny import GRID, autoencoder, images_for, noisy, predict, scores_for


def windowed(radius, **shared):
    model = autoencoder(**shared)
    return dataclasses.replace(model, decoder=model.decoder.clone(window=radius))


def test_who_attends_to_whom():
    pairs = np.asarray(window_pairs((3, 4), 1))[0, 0]
    assert pairs.shape == (13, 13)
    assert pairs[0].all() and not pairs[1:, 0].any()
    inner = pairs[1:, 1:]
    assert (inner == inner.T).all()
    assert inner[0].nonzero()[0].tolist() == [0, 1, 4, 5]
    assert inner[5].nonzero()[0].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert (np.asarray(window_pairs((3, 4), 0))[0, 0, 1:, 1:] == np.eye(12)).all()


@pytest.fixture(scope="module")
def setting():
    model = windowed(1)
    return model, noisy(model.init(jax.random.key(0))), images_for(model)


def test_predictions_do_not_know_of_what_is_further_off(setting):
    """Two blocks of radius 1: two patches in each direction, no class token."""
    model, params, _ = setting
    mask = select(scores_for(model), 12)
    latent = jax.random.normal(jax.random.key(1), (2, 13, 24))
    order = np.asarray(mask.ids_keep)[0]

    @jax.jit
    @jax.grad
    def influence(latent):
        out, _ = model.decoder.apply({"params": params["decoder"]}, latent, mask)
        return out[0, 1].sum()  # the patch in the corner

    found = np.abs(np.asarray(influence(latent))[0]).sum(-1)
    assert found[0] == 0
    columns = order % GRID[1]
    assert (found[1:][columns <= 2] > 0).all() and (found[1:][columns > 2] == 0).all()


def test_attention_outside_of_the_window_is_nothing(setting):
    model, params, images = setting
    mask = select(scores_for(model), 5)
    found = predict(model, params, images, mask, capture=("attention",))
    maps = np.asarray(found.captured["decoder"]["attention"])
    allowed = np.asarray(window_pairs(GRID, 1))[0, 0]
    assert (maps[..., ~allowed] == 0).all()
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    other = windowed(1, attention="xla")
    theirs = predict(other, params, images, mask).tokens
    np.testing.assert_allclose(found.tokens, theirs, atol=1e-5)
    layer = model.layer(params, images, 1, part="decoder")
    assert (np.asarray(layer.attention)[..., ~allowed] == 0).all()


def test_without_blocks_hidden_patches_are_told_by_their_place():
    model = autoencoder()
    model = dataclasses.replace(model, decoder=model.decoder.clone(depth=0))
    params = noisy(model.init(jax.random.key(0)))
    assert "blocks" not in params["decoder"]
    mask = jax.tree.map(lambda x: x[:1].repeat(2, 0), select(scores_for(model), 5))
    found = predict(model, params, images_for(model), mask, capture=("attention",))
    one, two = np.asarray(found.tokens)
    hidden = np.asarray(mask.hidden[0]) > 0
    np.testing.assert_allclose(one[hidden], two[hidden], atol=1e-6)
    assert np.abs(one[~hidden] - two[~hidden]).max() > 1e-3
    assert found.captured["decoder"]["attention"].shape == (0, 2, 2, 13, 13)
    with pytest.raises(ValueError, match="layers count from 1 to 0"):
        model.layer(params, images_for(model), 1, part="decoder")


def test_a_window_is_not_negative():
    with pytest.raises(ValueError, match="window -1"):
        windowed(-1)
    assert jnp.asarray(window_pairs((1, 2), 5)).shape == (1, 1, 3, 3)
