"""CL-MAE: both players' losses, parts and gradients of the authors' code."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.methods.base import Run
from sgmae_jax.methods.cl_mae import curriculum
from tests.golden.authors import load
from tests.golden.conversion import from_theirs, to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files
from tests.golden.methods import assert_scalar, batch_of, method_of

pytestmark = pytest.mark.parametrize("path", files("cl_mae", "cmm/"))
KEY = jax.random.key(0)
# The masking network's names inside an encoder's; it has no embedding of its own.
HEAD = {
    "mlp_head.0.weight": "norm.weight",
    "mlp_head.0.bias": "norm.bias",
    "mlp_head.1.weight": "decoder_pred.weight",
    "mlp_head.1.bias": "decoder_pred.bias",
}
STEPS = 2_000_000  # fine enough for any factor


def encoder_names(theirs):
    return {HEAD.get(name, name): array for name, array in theirs.items()}


def masker_from(theirs):
    """Their masking network as our tree."""
    theirs = encoder_names(theirs)
    # Its position row is fixed, and added to the class token.
    theirs["cls_token"] = theirs["cls_token"] + theirs.pop("pos_embed")
    tree = from_theirs(theirs)
    return {**tree["encoder"], "head": tree["decoder"]["pred"]}


def masker_to(tree, like):
    """Our tree under their names."""
    like = encoder_names(like)
    body = {name: leaf for name, leaf in tree.items() if name != "head"}
    found = to_theirs({"encoder": body, "decoder": {"pred": tree["head"]}}, like)
    back = {ours: theirs for theirs, ours in HEAD.items()}
    return {back.get(name, name): array for name, array in found.items()}


def setup(path, monkeypatch, **own):
    """(fixture, method, params)"""
    fixture = Fixture(path)
    meta = fixture.meta
    everything = fixture.under("param/")
    prefix = "masking_net."
    masking = {
        name.removeprefix(prefix): array
        for name, array in everything.items()
        if name.startswith(prefix)
    }
    rest = {n: a for n, a in everything.items() if not n.startswith(prefix)}
    images = fixture["in/images_nchw"]
    model, tree = load(
        rest, fixture.under("grad_mae/"), images, meta["heads"], meta["dheads"]
    )
    method = method_of(
        monkeypatch,
        "cl_mae",
        fixture,
        model,
        steps=STEPS,
        masker_depth=meta["cmm_depth"],
        masker_heads=meta["cmm_heads"],
        gauss_weight=meta["lambda_gauss"],
        kl_weight=meta["lambda_kl"],
        kl_reduction="sum",
        keep_ratio=meta["kl_ratio_hard_coded"],
        diversity_weight=meta["lambda_diversity"],
        **own,
    )
    params = {"model": tree, "masker": masker_from(masking)}
    return fixture, method, jax.tree.map(jnp.asarray, params)


def test_the_autoencoder_under_hard_masks(path, monkeypatch):
    fixture, method, params = setup(path, monkeypatch)
    ratio, batch = fixture.meta["mask_ratio"], batch_of(fixture)
    shown = jax.jit(method.picture, static_argnums=4)(
        params, batch, KEY, jnp.int32(0), ratio
    )
    np.testing.assert_array_equal(shown.hidden, fixture["out/hard_mask"])
    assert_output(shown.prediction, fixture["out/mae_pred"])
    act = jax.jit(method.updates[0].gradient, static_argnums=4)
    gradients, metrics = act(params, {"train": batch}, KEY, jnp.int32(0), ratio)
    assert_scalar(metrics["loss"], fixture["out/mae_loss"])
    theirs = fixture.under("grad_mae/")
    assert_gradients(to_theirs(gradients["model"], theirs), theirs)


def test_the_masking_network_at_every_factor(path, monkeypatch):
    fixture, method, params = setup(path, monkeypatch)
    act = jax.jit(method.updates[1].gradient, static_argnums=4)
    factors = {
        match[0]: float(match[1])
        for match in (re.match(r"lambda_([^/]+)", key) for key in fixture.under("cmm/"))
    }
    assert len(factors) >= 2
    for prefix, factor in factors.items():
        step = jnp.int32(round((1 - factor) / 2 * STEPS))
        gradients, metrics = act(
            params,
            {"train": batch_of(fixture)},
            KEY,
            step,
            fixture.meta["mask_ratio"],
        )
        assert_scalar(metrics["curriculum"], factor)
        assert_scalar(metrics["loss"], fixture[f"cmm/{prefix}/total"])
        for part, name in (
            ("reconstruction", "rec"),
            ("gauss", "gauss"),
            ("kl", "kl"),
            ("diversity", "div"),
        ):
            assert_scalar(metrics[part], fixture[f"out/loss_{name}"])
        theirs = fixture.under(f"cmm/{prefix}/")
        theirs = {n: a for n, a in theirs.items() if n not in ("total", "pos_embed")}
        assert_gradients(masker_to(gradients["masker"], theirs), theirs)


def test_the_released_staircase(path):
    for key, theirs in Fixture(path).under("curriculum/").items():
        epochs = int(re.fullmatch(r"factor_epochs_(\d+)", key)[1])
        assert len(theirs) == epochs
        run = Run(3, 3 * epochs)
        ours = [curriculum(step, run, "staircase") for step in range(3 * epochs)]
        np.testing.assert_allclose(ours, np.repeat(theirs, 3), rtol=0, atol=1e-6)
