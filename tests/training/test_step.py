"""Updates, guard, accumulation, periods and stages, on closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.methods.base import Stage
from sgmae_jax.optimizer import make_adamw
from sgmae_jax.training.state import enter_stage, init_state
from sgmae_jax.training.step import make_step
from tests.training.toys import KEY, one_network, quadratic, rows, toy


def jitted(method, **options):
    return jax.jit(make_step(method, **options), static_argnums=2)


def kernel(state, name="model"):
    return np.asarray(state.params[name]["kernel"])


def test_a_step_is_gradient_descent():
    method = one_network()
    state, metrics = jitted(method)(init_state(method, KEY), rows(1.0, 3.0), ())
    # Pulled to 1 + 2 = 3 from 0: gradient -6, rate 0.1.
    np.testing.assert_allclose(kernel(state), 0.6, rtol=1e-6)
    assert int(state.step) == 1 and int(state.skipped) == 0
    np.testing.assert_allclose(metrics["loss"], 27.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], 6 * 3**0.5, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.fault(12)
def test_a_non_finite_step_is_void(bad):
    teacher = {"model": 0.0, "teacher": 5.0}

    def average(params, step):
        del step
        mean = jax.tree.map(lambda t, s: 0.9 * t + 0.1 * s, *_pair(params))
        return {"teacher": mean}

    def _pair(params):
        return params["teacher"], params["model"]

    method = toy(
        quadratic("model", 1.0, optax.adam(0.1)), init=teacher, post_update=average
    )
    step = jitted(method)
    before, _ = step(init_state(method, KEY), rows(1.0), ())
    after, metrics = step(before, rows(bad), ())
    assert int(metrics["skipped"]) == 1 and int(after.skipped) == 1
    assert int(after.step) == 2
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt, before.opt)
    # What follows equals a run that never saw the bad batch.
    resumed, _ = step(after, rows(2.0), ())
    clean, _ = step(before, rows(2.0), ())
    jax.tree.map(np.testing.assert_array_equal, resumed.params, clean.params)


@pytest.mark.fault(12)
def test_a_non_finite_update_voids_the_others_too():
    method = toy(
        quadratic("a", 1.0, optax.sgd(0.1)),
        quadratic("b", jnp.nan, optax.sgd(0.1), name="other"),
    )
    state, metrics = jitted(method)(init_state(method, KEY), rows(1.0), ())
    assert int(metrics["skipped"]) == 1
    np.testing.assert_array_equal(kernel(state, "a"), 0.0)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_equals_one_large_batch(parts):
    method = one_network()
    state = init_state(method, KEY)
    batch = rows(*np.random.default_rng(0).normal(size=8))
    whole, m1 = jitted(method)(state, batch, ())
    split, m2 = jitted(method, accumulate=parts)(state, batch, ())
    np.testing.assert_allclose(kernel(split), kernel(whole), rtol=1e-5)
    np.testing.assert_allclose(m2["grad_norm"], m1["grad_norm"], rtol=1e-5)


def test_updates_see_each_other_and_keep_their_periods():
    method = toy(
        quadratic("fast", 1.0, optax.sgd(0.1)),
        quadratic("slow", 1.0, optax.sgd(0.1), every=3, name="slow"),
    )
    step, state = jitted(method), init_state(method, KEY)
    moved = []
    for _ in range(6):
        before = kernel(state, "slow")
        state, metrics = step(state, rows(0.0), ())
        moved.append(not np.array_equal(before, kernel(state, "slow")))
        assert {"loss", "slow/loss", "slow/lr", "skipped"} <= metrics.keys()
        assert np.isnan(metrics["slow/loss"]) == (not moved[-1])
    assert moved == [True, False, False, True, False, False]


@pytest.mark.parametrize("names", [("", ""), ("a", "b"), ("", "a", "a")])
def test_one_update_is_without_a_name_and_all_differ(names):
    updates = [
        quadratic(f"net{i}", 1.0, optax.sgd(0.1), name=name)
        for i, name in enumerate(names)
    ]
    with pytest.raises(ValueError, match="must have names but for one"):
        make_step(toy(*updates))


def test_a_stage_resets_optimizers_and_is_repeatable():
    def promote(params, key):
        shift = jax.random.normal(key, (3,))
        return {"model": {"kernel": params["model"]["kernel"] + 1 + 0 * shift}}

    method = toy(quadratic("model", 1.0, optax.adam(0.1)), stages=(Stage(2, promote),))
    step, state = jitted(method), init_state(method, KEY)
    for _ in range(2):
        state, _ = step(state, rows(0.0), ())
    enter = functools.partial(enter_stage, method, method.stages[0])
    entered, again = enter(state), enter(state)
    np.testing.assert_allclose(kernel(entered), kernel(state) + 1, rtol=1e-6)
    fresh = init_state(method, KEY).opt
    jax.tree.map(np.testing.assert_array_equal, entered.opt, fresh)
    jax.tree.map(np.testing.assert_array_equal, entered.params, again.params)


def test_a_stage_may_keep_the_moments_but_not_the_schedule():
    optim = default_config().optim
    optim.clip_norm = 1.0
    optimizer = make_adamw(optim, batch_size=256, steps_per_epoch=5, total_steps=10)
    stage = Stage(2, lambda params, key: params, keep_moments=True)
    method = toy(quadratic("model", 1.0, optimizer), stages=(stage,))
    step, state = jitted(method), init_state(method, KEY)
    rates = []
    for number in range(4):
        if number == 2:
            before = state.opt
            state = enter_stage(method, stage, state)
            for name in ("mu", "nu"):
                kept, old = (optax.tree.get(opt, name) for opt in (state.opt, before))
                jax.tree.map(np.testing.assert_array_equal, kept, old)
        state, metrics = step(state, rows(0.0), ())
        rates.append(float(metrics["lr"]))
    assert rates[:2] == rates[2:] and rates[0] > rates[1]
    adam = [
        node
        for node in jax.tree.leaves(
            state.opt, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)
        )
        if isinstance(node, optax.ScaleByAdamState)
    ]
    assert [int(node.count) for node in adam] == [4]


def test_one_compilation_a_phase():
    traces = []

    def phase_loss(params, batches, key, step, phase):
        traces.append(phase)
        return jnp.sum(params["model"]["kernel"] ** 2) * phase, {}

    from sgmae_jax.methods.base import Update, descend

    update = Update(("model",), descend(("model",), phase_loss), optax.sgd(0.1))
    method = toy(update)
    step, state = jitted(method), init_state(method, KEY)
    for phase in (0.5, 0.5, 0.75, 0.5, 0.75):
        state, _ = step(state, rows(0.0), phase)
    assert sorted(traces) == [0.5, 0.75]


@pytest.mark.fault(19)
def test_devices_do_not_change_a_step():
    method = one_network()
    batch = rows(*np.random.default_rng(1).normal(size=16))
    results = []
    for count in (1, 2, 8):
        mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        spread = jax.device_put(batch, place)
        state, _ = jitted(method)(init_state(method, KEY), spread, ())
        results.append(kernel(state))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
    np.testing.assert_allclose(results[2], results[0], rtol=1e-6)
