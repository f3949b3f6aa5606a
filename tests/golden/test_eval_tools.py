"""Position tables, schedule, and classifier features of the authors' tools."""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.models import resize_positions, sincos_table
from sgmae_jax.optimizer import learning_rate, make_lars, warmup_cosine
from tests.golden.authors import load
from tests.golden.conversion import to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files


def layer_norm(x, scale, bias):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-6) * scale + bias


@pytest.mark.parametrize("path", files("eval_tools", "pos/"))
def test_position_tables(path):
    tables = Fixture(path).under("pos/")
    names = {key.rsplit("/", 1)[0] for key in tables}
    for name in names:
        match = re.fullmatch(r"dim(\d+)_grid(\d+)(?:x(\d+))?_cls([01])", name)
        width, height, columns, with_cls = match.groups()
        grid = (int(height), int(columns or height))
        table = sincos_table(grid, int(width))[0 if with_cls == "1" else 1 :]
        values = tables[f"{name}/values"]
        np.testing.assert_allclose(
            table[tables[f"{name}/rows"]], values, rtol=0, atol=1e-12
        )
        scale = np.abs(table).sum()
        running = np.arange(1, table.size + 1) / table.size
        for key, ours in (
            ("sum", table.sum()),
            ("sum_abs", scale),
            ("weighted_sum", (table.ravel() * running).sum()),
        ):
            np.testing.assert_allclose(
                ours, tables[f"{name}/{key}"], rtol=0, atol=1e-12 * scale
            )


@pytest.mark.parametrize("path", files("eval_tools", "interp/"))
def test_resized_position_tables(path):
    pairs = Fixture(path).under("interp/")
    for name in {key.partition("/")[0] for key in pairs}:
        given, wanted = (pairs[f"{name}/{side}"][0] for side in ("in", "out"))
        # One special row, and square grids.
        old, new = (math.isqrt(len(table) - 1) for table in (given, wanted))
        ours = resize_positions(given, (old, old), (new, new))
        assert_output(ours, wanted, tolerance=2e-6)


@pytest.mark.parametrize("path", files("eval_tools", "pos/"))
def test_learning_rates(path):
    schedules = Fixture(path).meta.get("lr_sched")
    if not schedules:
        pytest.skip("no schedule in this fixture")
    for schedule in schedules:
        rate = warmup_cosine(
            schedule["lr"],
            schedule["warmup_epochs"],
            schedule["epochs"],
            schedule["min_lr"],
        )
        ours = [float(rate(jnp.float32(epoch))) for epoch in schedule["at_epoch"]]
        np.testing.assert_allclose(
            ours, schedule["lr_values"], rtol=2e-6, atol=1e-7 * schedule["lr"]
        )


def classifier(path, kind):
    """(fixture, all their parameters, the encoder's alone, model, params, images)."""
    fixture = Fixture(path)
    theirs = fixture.under(f"{kind}/param/")
    encoder = {
        name: array
        for name, array in theirs.items()
        if not name.startswith(("fc_norm", "head"))
    }
    width = theirs["cls_token"].size
    # The fine-tuned model has no last norm; ours computes it and nobody reads it.
    encoder.setdefault("norm.weight", np.ones(width, np.float32))
    encoder.setdefault("norm.bias", np.zeros(width, np.float32))
    images = fixture[f"{kind}/images_nchw"]
    gradients = fixture.under(f"{kind}/grad/")
    model, params = load(encoder, gradients, images, fixture.meta["heads"])
    images = jnp.asarray(images.transpose(0, 2, 3, 1))
    return fixture, theirs, model, jax.tree.map(jnp.asarray, params), images


@pytest.mark.parametrize("path", files("eval_tools", "linprobe/features"))
def test_probe_features(path):
    fixture, _, model, params, images = classifier(path, "linprobe")
    encoded = jax.jit(model.encode)(params, images)
    assert_output(encoded.cls, fixture["linprobe/features"])


@pytest.mark.parametrize("path", files("eval_tools", "finetune/features"))
def test_fine_tune_features_and_gradients(path):
    fixture, theirs, model, params, images = classifier(path, "finetune")
    labels = jnp.asarray(fixture["finetune/labels"])
    top = {name: theirs[name] for name in theirs if name.startswith(("fc_", "head"))}

    def loss(params, top):
        stream = model.encode(params, images, capture=("features",))
        pooled = stream.captured["features"][-1, :, 1:].mean(1)
        features = layer_norm(pooled, top["fc_norm.weight"], top["fc_norm.bias"])
        logits = features @ top["head.weight"].T + top["head.bias"]
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return errors.mean(), (features, logits)

    (value, (features, logits)), (gradients, of_top) = jax.jit(
        jax.value_and_grad(loss, (0, 1), has_aux=True)
    )(params, top)
    assert_output(features, fixture["finetune/features"])
    assert_output(logits, fixture["finetune/logits"])
    np.testing.assert_allclose(value, fixture["finetune/ce"], rtol=1e-5)
    expected = fixture.under("finetune/grad/")
    of_encoder = {name: a for name, a in expected.items() if name not in top}
    ours = to_theirs(gradients, of_encoder) | {
        name: np.asarray(array) for name, array in of_top.items()
    }
    assert_gradients(ours, expected)


@pytest.mark.parametrize("path", files("eval_tools", "lars/"))
def test_lars_trajectories(path):
    fixture = Fixture(path)
    for name, meta in fixture.meta["lars"].items():
        optim = default_config().optim
        # A constant rate: half a cosine from it to itself.
        optim.base_lr = optim.min_lr = meta["lr"]
        optim.weight_decay = meta["weight_decay"]
        lars = make_lars(
            optim,
            momentum=meta["momentum"],
            trust=meta["trust_coefficient"],
            batch_size=256,
            steps_per_epoch=1,
            total_steps=meta["steps"],
        )
        theirs = {("weight", "kernel"), ("bias", "bias"), ("zero_weight", "kernel")}
        of = fixture.under(f"lars/{name}/")
        params = {key: {ours: of[f"{key}0"]} for key, ours in theirs}
        state = lars.init(params)
        for step in range(meta["steps"]):
            grads = {key: {ours: of[f"grad_{key}"][step]} for key, ours in theirs}
            change, state = lars.update(grads, state, params)
            params = optax.apply_updates(params, change)
            for key, ours in theirs:
                wanted = of[f"trajectory_{key}"][step]
                assert_output(params[key][ours], wanted, tolerance=2e-6)
        np.testing.assert_allclose(learning_rate(state), meta["lr"], rtol=1e-6)
