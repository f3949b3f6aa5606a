"""RC-MAE: what it is in closed form, what it becomes without a teacher, and the EMA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.methods.image import forward_macs, make_autoencoder, training_flops
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.methods.rc_mae import distance, momentum_at
from tests.methods.cases import (
    KEY,
    batch_of,
    build,
    gradients,
    start,
    stepper,
    tiny_config,
)

STEP = jnp.int32(0)


def config_of(**own):
    return tiny_config("rc_mae", **{f"method__{name}": own[name] for name in own})


def apart(state, shift=0.05):
    """The state with a teacher that is not its student."""
    other = jax.tree.map(lambda leaf: leaf + shift, state.params["model"])
    return state._replace(params={**state.params, "teacher": other})


@pytest.fixture(scope="module")
def state():
    return apart(start(build(config_of())))


def assert_trees_close(ours, theirs, share=2e-6):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=share * largest),
        ours,
        theirs,
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_it_is_mae_with_a_blended_target(gamma, state):
    """|s-y|^2 + g |s-t|^2 = (1+g) |s - (y+gt)/(1+g)|^2 + what does not depend on s."""
    config = config_of(gamma=gamma)
    method, model = build(config), make_autoencoder(config)
    ours, metrics = gradients(method, 0, state, batch_of(), STEP, 0.75)
    images = model.normalise(batch_of()["image"])
    shown = method.picture(
        {**state.params, "model": state.params["teacher"]}, batch_of(), KEY, STEP, 0.75
    )
    pixels = pixel_targets(images, model.patch_size, norm_pix=True)
    target = (pixels + gamma * shown.prediction) / (1 + gamma)

    @jax.jit
    @jax.grad
    def blended(params):
        mask = method.picture({"model": params}, batch_of(), KEY, STEP, 0.75)
        return (1 + gamma) * reconstruction_loss(mask.prediction, target, mask.hidden)

    assert_trees_close(ours["model"], blended(state.params["model"]))
    total = metrics["reconstruction"] + gamma * metrics["consistency"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)


def test_without_consistency_it_is_mae(state):
    method, mae = build(config_of(gamma=0.0)), build(tiny_config())
    ours, metrics = gradients(method, 0, state, batch_of(), STEP, 0.75)
    alone = state._replace(params={"model": state.params["model"]})
    theirs, of_mae = gradients(mae, 0, alone, batch_of(), STEP, 0.75)
    assert_trees_close(ours["model"], theirs["model"])
    np.testing.assert_allclose(metrics["loss"], of_mae["loss"], rtol=1e-6)
    assert float(metrics["consistency"]) > 0


def test_another_mask_for_the_teacher_changes_only_the_consistency(state):
    found = {
        kind: gradients(
            build(config_of(teacher_mask=kind)), 0, state, batch_of(), STEP, 0.75
        )[1]
        for kind in ("same", "different")
    }
    same, other = found["same"], found["different"]
    np.testing.assert_allclose(same["reconstruction"], other["reconstruction"])
    assert abs(float(same["consistency"] - other["consistency"])) > 1e-4


def test_the_teacher_is_the_average_of_the_students_so_far():
    method = build(config_of(momentum=0.9), steps=4)
    state, step = start(method), stepper(method)
    jax.tree.map(
        np.testing.assert_array_equal, state.params["model"], state.params["teacher"]
    )
    expected = jax.tree.map(np.float64, jax.device_get(state.params["teacher"]))
    for number in range(4):
        state, metrics = step(state, {"train": batch_of()}, 0.75)
        # Half a cosine from 0.9 at the first step to 1 at the end of four.
        momentum = 1 - 0.1 * (1 + np.cos(np.pi * number / 4)) / 2
        if number == 0:
            assert float(metrics["consistency"]) == 0
            assert float(metrics["teacher_distance"]) == 0
        expected = jax.tree.map(
            lambda old, new, m=momentum: m * old + (1 - m) * np.float64(new),
            expected,
            jax.device_get(state.params["model"]),
        )
    assert float(metrics["teacher_distance"]) > 0
    assert_trees_close(state.params["teacher"], expected, share=1e-6)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("cosine", 0, 0.996),
        ("cosine", 50, 0.998),
        ("cosine", 100, 1.0),
        ("constant", 0, 0.996),
        ("constant", 100, 0.996),
    ],
)
def test_momentum(schedule, step, expected):
    found = momentum_at(step, start=0.996, total_steps=100, schedule=schedule)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_both_networks_are_evaluated_and_the_teacher_is_exported(state):
    method = build(config_of())
    assert list(method.features) == ["teacher", "student"]
    images = batch_of(4)["image"]
    of_teacher, of_student = (f(state.params, images) for f in method.features.values())
    assert not np.allclose(of_teacher, of_student)
    assert method.encoder(state.params) is state.params["teacher"]["encoder"]


def test_the_teacher_stays_float32_in_bfloat16_runs():
    method = build(tiny_config("rc_mae", model__dtype="bfloat16"))
    params = jax.eval_shape(method.init, KEY)
    moved = jax.eval_shape(method.post_update, params, jnp.int32(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}


def test_a_third_more_than_mae():
    config = config_of()
    model = make_autoencoder(config)
    found = build(config).flops(0.75)
    assert found == training_flops(model, 0.75) + 2 * forward_macs(model, 0.75)
    assert found == pytest.approx(4 / 3 * training_flops(model, 0.75))


def test_distance_is_relative():
    student = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    teacher = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([3.0])}
    np.testing.assert_allclose(distance(student, teacher), 1 / 5, rtol=1e-6)
