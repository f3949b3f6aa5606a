"""dBOT: targets, loss and gradient of the authors' code, and the promoted teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.methods.dbot import Phase, feature_loss, feature_targets
from tests.golden.authors import load
from tests.golden.conversion import from_theirs, to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files
from tests.golden.methods import assert_scalar, batch_of, method_of

pytestmark = pytest.mark.parametrize("path", files("dbot", "out/mask_with_cls"))
KEY, STEP = jax.random.key(0), jnp.int32(0)


def setup(path, monkeypatch, **own):
    """(fixture, method, model, params, phase)"""
    fixture = Fixture(path)
    meta = fixture.meta
    images = fixture["in/images_nchw"]
    model, student = load(
        fixture.under("param/"),
        fixture.under("grad/"),
        images,
        meta["heads"],
        meta["dheads"],
    )
    theirs = fixture.under("teacher/")
    if model.encoder.positions == "sincos":
        theirs.pop("pos_embed", None)
    teacher = {"encoder": from_theirs(theirs)["encoder"]}
    method = method_of(
        monkeypatch,
        "dbot",
        fixture,
        model,
        path,
        beta=meta["smooth_l1_beta"],
        norm_target=meta["norm_feature_loss"],
        final_norm=bool(meta["teacher_final_layernorm"]),
        **own,
    )
    params = jax.tree.map(jnp.asarray, {"model": student, "teacher": teacher})
    phase = Phase(meta["mask_ratio"], meta["teacher_depth"])
    return fixture, method, model, params, phase


def features_of(fixture, model, params, phase):
    return model.stream(
        params["teacher"],
        batch_of(fixture)["image"],
        phase.depth,
        normed=bool(fixture.meta["teacher_final_layernorm"]),
    )


def test_loss_and_gradient(path, monkeypatch):
    fixture, method, _, params, phase = setup(path, monkeypatch)
    act = jax.jit(method.updates[0].gradient, static_argnums=4)
    gradients, metrics = act(params, {"train": batch_of(fixture)}, KEY, STEP, phase)
    assert_scalar(metrics["loss"], fixture["out/loss"])
    theirs = fixture.under("grad/")
    assert_gradients(to_theirs(gradients["model"], theirs), theirs)


def test_targets(path, monkeypatch):
    fixture, _, model, params, phase = setup(path, monkeypatch)
    features = features_of(fixture, model, params, phase)
    assert_output(features, fixture["out/teacher_raw_feature"])
    norm = fixture.meta["norm_feature_loss"]
    assert_output(feature_targets(features, norm_target=norm), fixture["out/target"])


def test_weights_and_both_kinds_of_target(path, monkeypatch):
    fixture, method, _, params, phase = setup(path, monkeypatch)
    shown = method.picture(params, batch_of(fixture), KEY, STEP, phase)
    weight = jnp.pad(shown.hidden, ((0, 0), (1, 0)), constant_values=1.0)
    np.testing.assert_array_equal(weight, fixture["out/mask_with_cls"])
    for target, key in (
        ("out/target", "out/loss"),
        ("out/teacher_raw_feature", "out/loss_without_target_norm"),
    ):
        value = feature_loss(
            jnp.asarray(fixture["out/pred"]),
            jnp.asarray(fixture[target]),
            weight,
            fixture.meta["smooth_l1_beta"],
        )
        assert_scalar(value, fixture[key])


def test_promoted_teacher(path, monkeypatch):
    fixture, method, model, params, phase = setup(path, monkeypatch)
    promoted = method.stages[0].enter(params, KEY)
    whole = phase._replace(depth=model.encoder.depth)
    features = features_of(fixture, model, promoted, whole)
    if "out/promoted_teacher_raw_feature" not in fixture.arrays:
        pytest.skip("no promoted teacher in this fixture")
    assert_output(features, fixture["out/promoted_teacher_raw_feature"])
