"""SMA's networks: size, no leak, the same by gathering and by blocking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import example_keys, mask_valid, select
from sgmae_jax.models.sma import Inputs, SmaDecoder, SmaEncoder
from sgmae_jax.models.sma_autoencoder import SmaAutoencoder

pytestmark = pytest.mark.usefixtures("quick_compilation")


def network(*, latents=0, channels=2, symbols=0, length=12, **decoder):
    """A small one; its matrices are scaled up so that attention says something."""
    width = 16
    encoder = SmaEncoder(
        length=length,
        channels=channels,
        symbols=symbols,
        width=width,
        latents=latents,
        latent_width=24 if latents else width,
        depth=2,
        heads=4,
        first_heads=2,
        qk_width=16,
        first_qk_width=8,
        v_width=24 if latents else width,
    )
    model = SmaAutoencoder(
        encoder,
        SmaDecoder(
            width=width,
            heads=2,
            qk_width=16,
            v_width=16,
            out_values=channels + symbols,
            **decoder,
        ),
    )
    params = jax.tree.map(lambda leaf: 5 * leaf, model.init(jax.random.key(0)))
    return model, params


def batch(length=12, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    valid = jnp.asarray(np.arange(length) < np.array([length, 9, 5])[:, None])
    values = jnp.asarray(rng.standard_normal((3, length, channels)), jnp.float32)
    return Inputs(valid, values)


def masked(valid, seed=0):
    ids = jnp.arange(len(valid))
    keys = example_keys(jax.random.key(seed), jnp.zeros_like(ids), ids, "mask")
    noise = jnp.zeros(valid.shape)
    return mask_valid(keys, noise, valid, ratio=0.4, random=1.0)


def test_the_paper_s_higgs_model_has_602241_parameters():
    encoder = SmaEncoder(
        length=28,
        channels=1,
        symbols=0,
        width=128,
        latents=0,
        latent_width=128,
        depth=4,
        heads=8,
        first_heads=8,
        qk_width=128,
        first_qk_width=128,
        v_width=128,
    )
    decoder = SmaDecoder(width=128, heads=1, qk_width=128, v_width=128, out_values=1)
    model = SmaAutoencoder(encoder, decoder)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 602_241


def test_fresh_parameters_are_normal_and_small():
    model, _ = network()
    params = model.init(jax.random.key(1))
    flat = jax.tree_util.tree_leaves_with_path(params)
    drawn = np.concatenate(
        [
            np.ravel(leaf)
            for path, leaf in flat
            if path[-1].key in ("kernel", "position")
        ]
    )
    np.testing.assert_allclose(drawn.std(), 0.02, rtol=0.05)
    assert not any(leaf.any() for path, leaf in flat if path[-1].key == "bias")
    assert all((leaf == 1).all() for path, leaf in flat if path[-1].key == "scale")


@pytest.mark.parametrize(("latents", "gather"), [(0, True), (0, False), (6, True)])
def test_what_is_hidden_does_not_leak(latents, gather):
    model, params = network(latents=latents)
    inputs = batch()
    mask = masked(inputs.valid)

    @jax.jit
    def predict(values):
        given = inputs._replace(values=values)
        embedded = model.embed(params, given)
        return model.predict(params, embedded, inputs.valid, mask, gather=gather)

    changed = jnp.where(mask.hidden[..., None] > 0, 100.0, inputs.values)
    before, after = predict(inputs.values), predict(changed)
    # Exactly: hidden inputs are blocked, and padding is.
    np.testing.assert_array_equal(before, after)
    seen = inputs.values + (1 - mask.hidden)[..., None]
    assert np.abs(np.asarray(predict(seen)) - np.asarray(before)).max() > 1e-3


def test_gathering_and_blocking_agree():
    model, params = network(mask_token=True)
    inputs = batch()
    mask = masked(inputs.valid)
    embedded = model.embed(params, inputs)
    one, two = (
        model.predict(params, embedded, inputs.valid, mask, gather=gather)
        for gather in (True, False)
    )
    assert np.abs(np.asarray(one) - np.asarray(two)).max() <= 1e-6 * max(
        1.0, np.abs(np.asarray(one)).max()
    )


def test_inputs_and_their_positions_may_be_permuted():
    model, params = network(mask_token=True)
    inputs = batch()
    inputs = inputs._replace(valid=jnp.ones_like(inputs.valid))
    mask = masked(inputs.valid)
    order = np.random.default_rng(0).permutation(12)
    moved = jax.tree.map(lambda leaf: leaf, params)
    moved["encoder"] = {
        **params["encoder"],
        "position": params["encoder"]["position"][order],
    }
    hidden = mask.hidden[:, order]
    again = select(hidden, mask.ids_keep.shape[1])
    given = inputs._replace(values=inputs.values[:, order])
    one = model.predict(params, model.embed(params, inputs), inputs.valid, mask)
    two = model.predict(moved, model.embed(moved, given), given.valid, again)
    np.testing.assert_allclose(one[:, order], two, atol=2e-5)


def test_padding_changes_nothing():
    model, params = network()
    inputs = batch()
    far = inputs._replace(values=jnp.where(inputs.valid[..., None], inputs.values, 1e3))
    one, two = (
        model.encode(params, model.embed(params, given), given.valid).states
        for given in (inputs, far)
    )
    real = np.asarray(inputs.valid)
    np.testing.assert_array_equal(np.asarray(one)[real], np.asarray(two)[real])
    short = jax.tree.map(lambda leaf: leaf[2:, :5], inputs)
    alone = model.encode(params, model.embed(params, short), short.valid).states
    np.testing.assert_allclose(alone[0], one[2, :5], atol=1e-5)


def test_symbols_and_numbers_share_a_row():
    model, params = network(channels=1, symbols=5)
    valid = jnp.ones((1, 12), bool)
    symbols = jnp.asarray(np.where(np.arange(12) % 2, np.arange(12) % 5, -1)[None])
    values = jnp.ones((1, 12, 1))
    given = Inputs(valid, values, symbols)
    other = given._replace(values=values + symbols[..., None].clip(0))
    np.testing.assert_array_equal(
        model.embed(params, given), model.embed(params, other)
    )
    moved = given._replace(values=values + 1)
    changed = np.abs(model.embed(params, moved) - model.embed(params, given)).max(-1)
    np.testing.assert_array_equal(changed[0] > 0, np.arange(12) % 2 == 0)


def test_dropout_is_each_example_s_own():
    model, params = network()
    encoder = model.encoder.clone(attention_dropout=0.2, dropout=0.2)
    inputs = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:1]] * 3), batch())
    ids = jnp.array([4, 7, 4])
    keys = example_keys(jax.random.key(0), jnp.zeros_like(ids), ids, "dropout")
    own = {"params": params["encoder"]}
    embedded = model.embed(params, inputs)
    made = encoder.apply(own, embedded, inputs.valid, noise=keys).states
    plain = encoder.apply(own, embedded, inputs.valid).states
    np.testing.assert_allclose(made[0], made[2], atol=1e-5)
    assert np.abs(made[0] - made[1]).max() > 0.01
    assert np.abs(made[0] - plain[0]).max() > 0.01
