"""RC-MAE: losses, gradient, teacher after a step, and momentum of the authors' code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.methods.rc_mae import momentum_at
from tests.golden.authors import load
from tests.golden.conversion import from_theirs, to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files
from tests.golden.methods import assert_scalar, batch_of, method_of

pytestmark = pytest.mark.parametrize("path", files("rc_mae", "out/loss_consistency"))
KEY, STEP = jax.random.key(0), jnp.int32(0)


def setup(path, monkeypatch, **own):
    """(fixture, method, model, params)"""
    fixture = Fixture(path)
    meta, grads = fixture.meta, fixture.under("grad/")
    images = fixture["in/images_nchw"]
    sizes = grads, images, meta["heads"], meta["dheads"]
    model, student = load(fixture.under("param/"), *sizes)
    _, teacher = load(fixture.under("teacher/"), *sizes)
    method = method_of(
        monkeypatch,
        "rc_mae",
        fixture,
        model,
        path,
        gamma=meta["gamma"],
        momentum=meta["ema_momentum"],
        **own,
    )
    params = jax.tree.map(jnp.asarray, {"model": student, "teacher": teacher})
    return fixture, method, model, params


def test_losses_and_gradient(path, monkeypatch):
    fixture, method, _, params = setup(path, monkeypatch)
    act = jax.jit(method.updates[0].gradient, static_argnums=4)
    batches = {"train": batch_of(fixture)}
    gradients, metrics = act(params, batches, KEY, STEP, fixture.meta["mask_ratio"])
    assert_scalar(metrics["loss"], fixture["out/loss"])
    assert_scalar(metrics["reconstruction"], fixture["out/loss_reconstruction"])
    assert_scalar(metrics["consistency"], fixture["out/loss_consistency"])
    theirs = fixture.under("grad/")
    assert_gradients(to_theirs(gradients["model"], theirs), theirs)


def test_mask_and_predictions(path, monkeypatch):
    fixture, method, _, params = setup(path, monkeypatch)
    ratio = fixture.meta["mask_ratio"]
    for name, who in (("student", "model"), ("teacher", "teacher")):
        seen = {**params, "model": params[who]}
        shown = jax.jit(method.picture, static_argnums=4)(
            seen, batch_of(fixture), KEY, STEP, ratio
        )
        assert_output(shown.prediction, fixture[f"out/{name}_pred"])
        np.testing.assert_array_equal(shown.hidden, fixture["out/mask"])


def test_teacher_after_a_step(path, monkeypatch):
    fixture, method, _, params = setup(path, monkeypatch)
    moved = from_theirs(fixture.under("grad/"))
    rate = fixture.meta["sgd_lr"]
    trained = dict(jax.tree_util.tree_leaves_with_path(moved))
    student = jax.tree_util.tree_map_with_path(
        lambda place, leaf: leaf - rate * trained.get(place, 0.0), params["model"]
    )
    after = method.post_update({**params, "model": student}, jnp.int32(1))
    for prefix, tree in (
        ("after/student/", student),
        ("after/teacher/", after["teacher"]),
    ):
        theirs = fixture.under(prefix)
        ours = to_theirs(tree, theirs)
        for name, reference in theirs.items():
            # One float32 step beside theirs, whose fractions are float64.
            np.testing.assert_allclose(
                ours[name], reference, rtol=0, atol=1e-6, err_msg=name
            )


def test_momentum(path):
    fixture = Fixture(path)
    for key, theirs in fixture.under("schedule/").items():
        assert key.startswith("momentum")
        ours = [
            momentum_at(
                step,
                start=fixture.meta["ema_momentum"],
                total_steps=len(theirs),
                schedule="cosine",
            )
            for step in range(len(theirs))
        ]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)
