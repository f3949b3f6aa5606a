"""CL-MAE: two players without a leak, the curriculum, and each term of the masker."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import ConfigError, validate
from sgmae_jax.methods.base import Run
from sgmae_jax.methods.cl_mae import (
    curriculum,
    indecision,
    keep_divergence,
    likeness,
    soft_mask,
)
from tests.methods.cases import (
    KEY,
    batch_of,
    build,
    gradients,
    start,
    stepper,
    tiny_config,
)

STEP, STEPS = jnp.int32(0), 10


def config_of(**own):
    fields = {"masker_depth": 1, "masker_heads": 2} | own
    return tiny_config("cl_mae", **{f"method__{name}": fields[name] for name in fields})


@pytest.fixture(scope="module")
def method():
    return build(config_of(), steps=STEPS)


@pytest.fixture(scope="module")
def state(method):
    return start(method)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_each_player_moves_alone(method, state):
    """One step is: the autoencoder's, then the masking network's on its result."""
    batch = {"train": batch_of()}
    params, losses = dict(state.params), []
    key = jax.random.wrap_key_data(state.key)
    for update, opt in zip(method.updates, state.opt, strict=True):
        act = jax.jit(update.gradient, static_argnums=4)
        grads, found = act(params, batch, key, STEP, 0.75)
        losses.append(float(found["loss"]))
        assert tuple(grads) == update.owns
        owned = {name: params[name] for name in update.owns}
        change, _ = jax.jit(update.optimizer.update)(grads, opt, owned)
        params = {**params, **optax.apply_updates(owned, change)}
    alone = act(state.params, batch, key, STEP, 0.75)[1]["loss"]
    after, metrics = stepper(method)(state, batch, 0.75)
    assert not any(equal(after.params[name], state.params[name]) for name in params)
    np.testing.assert_allclose(metrics["loss"], losses[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["masker/loss"], losses[1], rtol=1e-5)
    assert abs(losses[1] - float(alone)) > 1e-3  # before the other's move
    assert {"lr", "masker/lr", "masker/keep_ratio"} <= set(metrics)


def test_the_gradient_is_affine_in_the_factor(method, state):
    """Steps 0, 5 and 10 of 10 have the factors 1, 0 and -1."""
    found = [
        gradients(method, 1, state, batch_of(), jnp.int32(step), 0.75)
        for step in (0, 5, 10)
    ]
    np.testing.assert_allclose(
        [metrics["curriculum"] for _, metrics in found], [1, 0, -1], atol=1e-6
    )
    helping, neutral, hindering = (grads["masker"] for grads, _ in found)
    largest = float(optax.tree.max(jax.tree.map(jnp.abs, neutral)))
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(
            a + b, 2 * c, rtol=0, atol=5e-6 * largest
        ),
        helping,
        hindering,
        neutral,
    )
    assert not np.allclose(
        helping["head"]["kernel"], hindering["head"]["kernel"], rtol=1e-3
    )


def test_curriculum():
    run = Run(5, 50)
    linear = np.array([curriculum(step, run, "linear") for step in range(51)])
    assert linear[0] == 1 and linear[50] == -1
    np.testing.assert_allclose(linear, -linear[::-1], atol=1e-6)
    assert (np.diff(linear) < 0).all()
    stairs = np.array([curriculum(step, run, "staircase") for step in range(50)])
    assert stairs[0] == 1 and stairs[-1] == -1
    assert (stairs.reshape(10, 5) == stairs[::5, None]).all() and (stairs != 0).all()
    jitted = jax.jit(lambda step: curriculum(step, run, "staircase"))
    found = [float(jitted(step)) for step in range(0, 50, 7)]
    np.testing.assert_allclose(found, stairs[::7], atol=1e-6)


def test_indecision():
    def at(m):
        return float(indecision(jnp.full((2, 3), m)))

    np.testing.assert_allclose(at(0.5), 0.3008, atol=1e-4)
    assert at(0.0) < 1e-4 and at(1.0) < 1e-4
    np.testing.assert_allclose(at(0.3), at(0.7), rtol=1e-5)


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.9])
def test_keep_divergence(kept):
    at_goal = keep_divergence(jnp.full((2, 8), kept), kept)
    np.testing.assert_allclose(at_goal, 0, atol=1e-6)
    q = 0.4
    expected = q * np.log(q / kept) + (1 - q) * np.log((1 - q) / (1 - kept))
    rows = jnp.tile(jnp.array([0.2, 0.6]), (3, 4))
    np.testing.assert_allclose(keep_divergence(rows, kept), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "own", "goal"),
    [(0.75, {}, 0.25), (0.5, {}, 0.5), (0.5, {"keep_ratio": 0.25}, 0.25)],
)
def test_the_divergence_holds_the_share_that_is_kept(ratio, own, goal):
    """What the network is pulled to follows the mask ratio, or the ratio named."""
    method = build(config_of(gauss_weight=0.0, diversity_weight=0.0, **own), steps=4)
    state, batch = start(method), {"train": batch_of()}
    update = method.updates[1]
    act = jax.jit(update.gradient, static_argnums=4)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def move(params, opt, grads):
        change, opt = optimizer.update(grads["masker"], opt)
        return {**params, "masker": optax.apply_updates(params["masker"], change)}, opt

    params, opt = state.params, optimizer.init(state.params["masker"])
    for _ in range(60):  # at step 2 of 4 the factor is 0
        grads, metrics = act(params, batch, KEY, jnp.int32(2), ratio)
        params, opt = move(params, opt, grads)
    assert float(metrics["curriculum"]) == 0
    np.testing.assert_allclose(metrics["keep_ratio"], goal, atol=0.03)


def test_sum_and_mean_of_the_divergence(state):
    mean, total = (
        gradients(
            build(config_of(kl_weight=1.0, kl_reduction=kind)),
            1,
            state,
            batch_of(),
            STEP,
            0.75,
        )[1]["kl"]
        for kind in ("mean", "sum")
    )
    np.testing.assert_allclose(total, 16 * mean, rtol=1e-5)


def test_likeness():
    scores = jax.random.uniform(KEY, (6, 20))
    pairs = [
        np.exp(-0.1 * np.linalg.norm(scores[a] - scores[b]))
        for a in range(6)
        for b in range(a)
    ]
    np.testing.assert_allclose(likeness(scores), np.mean(pairs), rtol=1e-5)
    assert float(likeness(scores[:1])) == 0
    alike = jnp.tile(scores[:1], (4, 1))
    np.testing.assert_allclose(likeness(alike), 1.0, atol=1e-3)
    for rows in (alike, scores, scores.at[1].set(scores[0])):
        assert jnp.isfinite(jax.grad(likeness)(rows)).all()
    numeric = (
        likeness(scores.at[2, 3].add(1e-2)) - likeness(scores.at[2, 3].add(-1e-2))
    ) / 2e-2
    np.testing.assert_allclose(jax.grad(likeness)(scores)[2, 3], numeric, rtol=0.02)


def test_soft_masks_show_everything_dimmed():
    scores = jax.random.uniform(KEY, (2, 6))
    mask = soft_mask(scores, weight_gradient=True)
    np.testing.assert_array_equal(mask.ids_keep, np.tile(np.arange(6), (2, 1)))
    np.testing.assert_array_equal(mask.hidden, 0.0)
    np.testing.assert_array_equal(mask.gate, scores)
    np.testing.assert_allclose(mask.loss_weight, 1 - scores)
    for through in (True, False):
        slope = jax.grad(
            lambda m, through=through: soft_mask(
                m, weight_gradient=through
            ).loss_weight.sum()
        )(scores)
        np.testing.assert_array_equal(slope, -1.0 if through else 0.0)


def test_a_constant_score_keeps_the_first_tokens(method, state):
    """Ties go to the lower index; with these masks it is an ordinary MAE step."""
    masker = {**state.params["masker"]}
    masker["head"] = jax.tree.map(jnp.zeros_like, masker["head"])
    params = {**state.params, "masker": masker}
    shown = method.picture(params, batch_of(), KEY, STEP, 0.75)
    expected = np.tile((np.arange(24) >= 6) * 1.0, (16, 1))
    np.testing.assert_array_equal(shown.hidden, expected)
    constant = state._replace(params=params)
    _, ours = gradients(method, 0, constant, batch_of(), STEP, 0.75)
    mae = build(
        tiny_config(
            mask__fn="tests.methods.test_cl_mae:first_tokens", method__norm_pix=False
        )
    )
    alone = state._replace(params={"model": params["model"]})
    _, theirs = gradients(mae, 0, alone, batch_of(), STEP, 0.75)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-6)


def first_tokens(keys, context, *, ratio):
    from sgmae_jax.masking import num_keep, select

    order = jnp.tile(jnp.arange(context.num_tokens), (len(keys), 1))
    return select(order, num_keep(context.num_tokens, ratio))


def test_masks_are_fixed_unless_noise_is_asked_for(state):
    def hidden(noise, epoch):
        picture = jax.jit(build(config_of(noise=noise)).picture, static_argnums=4)
        return np.asarray(
            picture(state.params, batch_of(epoch=epoch), KEY, STEP, 0.75).hidden
        )

    np.testing.assert_array_equal(hidden(0.0, 0), hidden(0.0, 1))
    assert not np.array_equal(hidden(0.3, 0), hidden(0.3, 1))
    assert (hidden(0.3, 0).sum(1) == 18).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask__fn": "sgmae_jax.masking:block_mask"}, "makes its own masks"),
        ({"method__masker_heads": 5}, "must divide"),
        ({"method__keep_ratio": 1.0}, "< 1"),
        ({"method__curriculum": "cosine"}, "linear, staircase"),
    ],
    ids=str,
)
def test_bad_fields_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        validate(tiny_config("cl_mae", **changes))


def test_flops_are_those_of_the_spec():
    found = {}
    for name in ("mae", "cl_mae"):
        config = tiny_config(name)
        config.data.image_size, config.model.patch_size = 224, 16
        config.model.preset = "vit_b"
        config.model.width = config.model.depth = config.model.heads = None
        config.model.decoder_width, config.model.decoder_depth = 512, 8
        found[name] = build(config).flops(0.75)
    assert found["cl_mae"] / found["mae"] == pytest.approx(3.56, abs=0.01)
