"""AutoMAE: two players, the schedule, the first stage, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import ConfigError, validate
from sgmae_jax.methods.automae import entropy, least_squares
from sgmae_jax.models.mask_gan import MaskDiscriminator, MaskGenerator
from tests.methods.cases import (
    KEY,
    batch_of,
    build,
    first_stage,
    gradients,
    start,
    stepper,
    tiny_config,
)

STEP = jnp.int32(0)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return first_stage(tmp_path_factory.mktemp("scorer"))


def config_of(scorer, **own):
    fields = {"scorer": scorer} | own
    return tiny_config("automae", **{f"method__{k}": v for k, v in fields.items()})


@pytest.fixture(scope="module")
def method(scorer):
    return build(config_of(scorer))


@pytest.fixture(scope="module")
def state(method):
    return start(method)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_who_moves_in_a_step(method, state):
    for index, own in ((0, {"discriminator"}), (1, {"model", "generator"})):
        grads, _ = gradients(method, index, state, batch_of(), STEP, 0.75)
        assert set(grads) == own
        for name in own:
            assert float(optax.tree.norm(grads[name])) > 0, name
    after, metrics = stepper(method)(state, {"train": batch_of()}, 0.75)
    moved = {n for n in state.params if not equal(after.params[n], state.params[n])}
    # The rate is not 0: there is no warm-up. The scorer never moves.
    assert moved == {"model", "generator", "discriminator", "spectral"}
    assert {"entropy", "keep_ratio", "discriminator/real", "discriminator/fake"} <= set(
        metrics
    )
    np.testing.assert_allclose(metrics["keep_ratio"], 0.25, rtol=1e-6)
    for name in ("discriminator/lr", "lr"):
        assert float(metrics[name]) > 0


def test_the_discriminator_does_not_decay(method, state):
    """Adam, not AdamW: without a gradient nothing shrinks."""
    update = method.updates[0]
    owned = {"discriminator": state.params["discriminator"]}
    zeros = jax.tree.map(jnp.zeros_like, owned)
    change, _ = update.optimizer.update(zeros, state.opt[0], owned)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(change))


def test_without_boost_the_masks_are_those_of_the_noise(scorer, state):
    """Whatever the sample says, hidden tokens are uniform."""
    picture = jax.jit(build(config_of(scorer, boost=0.0)).picture, static_argnums=4)
    share = np.mean(
        [
            picture(state.params, batch_of(epoch=epoch), KEY, STEP, 0.75).hidden
            for epoch in range(60)
        ],
        axis=(0, 1),
    )
    error = np.sqrt(0.75 * 0.25 / (60 * 16))
    assert np.abs(share - 0.75).max() < 4.5 * error


def test_the_temperature_goes_from_one_end_to_the_other(scorer, state):
    method = build(config_of(scorer, temperature=4.0, temperature_end=1.0))
    found = [
        gradients(method, 1, state, batch_of(), jnp.int32(step), 0.75)[1]
        for step in (0, 5, 10)
    ]
    temperatures = [float(one["temperature"]) for one in found]
    np.testing.assert_allclose(temperatures, [4.0, 2.0, 1.0], rtol=1e-5)
    assert found[0]["entropy"] > found[1]["entropy"] > found[2]["entropy"]


@pytest.mark.parametrize("heads", [1, 4])
def test_any_number_of_heads(heads, tmp_path):
    path = first_stage(tmp_path, model__heads=heads)
    method = build(config_of(path))
    params = jax.eval_shape(method.init, KEY)
    hidden = params["generator"]["hidden"]["kernel"]
    assert hidden.shape == (3, 3, heads, max(heads // 2, 1))
    _, batches, _ = jax.eval_shape(
        lambda params, batch: method.prepare(params, {"train": batch}, KEY, 0, 0.75),
        params,
        batch_of(),
    )
    assert batches["train"]["attention"].shape == (16, heads, 24)


def test_attention_is_that_of_the_first_stage(scorer, method, state):
    given = {**state.params, **method.given()}
    config = tiny_config()
    params = build(config).init(jax.random.key(9))
    from sgmae_jax.methods.image import make_autoencoder

    last = make_autoencoder(config).layer(params["model"], batch_of()["image"], -1)
    _, batches, _ = method.prepare(given, {"train": batch_of()}, KEY, 0, 0.75)
    expected = 24 * last.attention[:, :, 0, 1:]
    np.testing.assert_allclose(batches["train"]["attention"], expected, rtol=1e-5)


@pytest.mark.parametrize("grid", [(4, 6), (14, 14), (12, 12), (7, 5), (28, 28)])
def test_the_discriminator_takes_any_grid(grid):
    discriminator = MaskDiscriminator(grid)
    kernels, vectors = discriminator.begin(KEY)
    maps = jax.nn.softmax(jax.random.normal(KEY, (3, grid[0] * grid[1])))
    found, after = discriminator.scores(kernels, vectors, maps)
    assert found.shape == (3,) and jnp.isfinite(found).all()
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, vectors)
    if grid == (14, 14):
        assert kernels["conv3"]["kernel"].shape == (3, 3, 32, 1)


def test_power_iterations_find_the_spectral_norm():
    discriminator = MaskDiscriminator((6, 6))
    kernels, vectors = discriminator.begin(KEY)
    for _ in range(200):
        _, vectors = discriminator.scores(kernels, vectors, jnp.zeros((1, 36)))
    for name in kernels:
        matrix = np.asarray(kernels[name]["kernel"]).reshape(
            -1, kernels[name]["kernel"].shape[-1]
        )
        largest = np.linalg.svd(matrix, compute_uv=False)[0]
        np.testing.assert_allclose(vectors[name]["sigma"], largest, rtol=1e-4)
    # Without biases, and each layer divided by its norm, scale goes straight through.
    maps = jax.random.uniform(KEY, (2, 36))
    once, _ = discriminator.scores(kernels, vectors, maps)
    scaled = jax.tree.map(lambda kernel: 5 * kernel, kernels)
    same, _ = discriminator.scores(scaled, vectors, maps)
    np.testing.assert_allclose(once, same, rtol=1e-4)
    twice, _ = discriminator.scores(kernels, vectors, 2 * maps)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)


def test_the_generator_has_the_authors_size():
    params = MaskGenerator((14, 14), 6).init(KEY, jnp.zeros((1, 12, 196)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 709


def test_losses_in_closed_form():
    np.testing.assert_allclose(least_squares(jnp.array([0.0, 2.0]), 1.0), 1.0)
    even, one = jnp.full((1, 8), 1 / 8), jnp.eye(8)[:1]
    rows = jnp.concatenate([even, one])
    np.testing.assert_allclose(entropy(rows), [np.log(8), 0.0], rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda m: entropy(m).sum())(even)).all()


def test_the_first_stage_must_be_there_and_fit(scorer, tmp_path):
    other = first_stage(tmp_path / "other", model__patch_size=2)
    coloured = tmp_path / "damaged"
    first_stage(coloured)
    (coloured / "card.json").write_text("{}")
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    (empty / "config.json").write_text('{"method.name": "none"}')
    for path, words in (
        ("", "must name the first stage"),
        ("nowhere", "must be a run directory"),
        (other, "must take this run's patches"),
        (str(coloured), r"card\.json is damaged"),
        (str(empty), "does not say what its model is"),
    ):
        with pytest.raises(ConfigError, match=words):
            validate(config_of(path))


def test_small_grids_and_masks_from_elsewhere_are_refused(scorer):
    config = config_of(scorer)
    config.model.patch_size = 8
    with pytest.raises(ConfigError, match="at least 4x4"):
        validate(config)
    config = config_of(scorer)
    config.mask.fn = "sgmae_jax.masking:grid_mask"
    with pytest.raises(ConfigError, match="makes its own masks"):
        validate(config)
