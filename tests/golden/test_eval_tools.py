"""Tables, schedule, LARS, layer decay, and both classifiers of the authors' tools."""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax import methods
from sgmae_jax.config import default_config
from sgmae_jax.methods import finetune, pretrained
from sgmae_jax.methods.base import Run
from sgmae_jax.models import resize_positions, sincos_table
from sgmae_jax.optimizer import decay_mask, learning_rate, make_lars, warmup_cosine
from tests.golden.authors import load
from tests.golden.conversion import leaf_of, to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files

KEY = jax.random.key(0)


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


def classifier(path, kind, monkeypatch, pool):
    """(fixture, our method, its model's parameters, images) of a kind of classifier."""
    fixture = Fixture(path)
    theirs = fixture.under(f"{kind}/param/")
    encoder = {
        name: array
        for name, array in theirs.items()
        if not name.startswith(("fc_norm", "head"))
    }
    width = theirs["cls_token"].size
    # The fine-tuned model has no last norm; ours keeps it and does not use it.
    encoder.setdefault("norm.weight", np.ones(width, np.float32))
    encoder.setdefault("norm.bias", np.zeros(width, np.float32))
    images = fixture[f"{kind}/images_nchw"]
    gradients = fixture.under(f"{kind}/grad/")
    model, params = load(encoder, gradients, images, fixture.meta["heads"])
    monkeypatch.setattr(pretrained, "make_autoencoder", lambda config: model)
    name = {"linprobe": "linear_probe"}.get(kind, kind)
    config = default_config(name)
    config.method.pool = config.eval.pool = pool
    run = Run(1, 10, classes=fixture.meta["classes"])
    images = jnp.asarray(images.transpose(0, 2, 3, 1))
    batch = {"image": images, "label": jnp.asarray(fixture[f"{kind}/labels"])}
    params = {"encoder": jax.tree.map(jnp.asarray, params["encoder"])}
    return fixture, methods.load(name).build(config, run), params, batch


def linear(theirs):
    """Their last layer as ours; a kernel is a transposed weight."""
    return {"kernel": theirs["head.weight"].T, "bias": theirs["head.bias"]}


@pytest.mark.parametrize("path", files("eval_tools", "linprobe/features"))
def test_linear_probe(path, monkeypatch):
    fixture, method, model, batch = classifier(path, "linprobe", monkeypatch, "cls")
    head = linear(fixture.under("linprobe/param/"))
    fresh = jax.jit(method.init)(KEY)["statistics"]
    params = {"model": model, "head": head, "statistics": fresh}
    args = (KEY, jnp.int32(0), ())
    params, batches, _ = jax.jit(method.prepare, static_argnums=4)(
        params, {"train": batch}, *args
    )
    for name in ("mean", "var"):
        wanted = fixture[f"linprobe/bn_running_{name}_after_one_batch"]
        assert_output(params["statistics"][name], wanted)
    features = batches["train"]["features"]
    logits = features @ head["kernel"] + head["bias"]
    assert_output(logits, fixture["linprobe/logits"])
    grads, metrics = jax.jit(method.updates[0].gradient, static_argnums=4)(
        params, batches, *args
    )
    np.testing.assert_allclose(metrics["loss"], fixture["linprobe/ce"], rtol=1e-5)
    own = grads["head"]
    ours = {"head.weight": np.asarray(own["kernel"].T), "head.bias": own["bias"]}
    assert_gradients(ours, fixture.under("linprobe/grad/"))
    found = jax.jit(method.logits)(params, batch["image"])
    assert_output(found, fixture["linprobe/logits_eval_mode"])
    found = jax.jit(method.features["encoder"])(params, batch["image"])
    assert_output(found, fixture["linprobe/features"])


@pytest.mark.parametrize("path", files("eval_tools", "finetune/features"))
def test_fine_tuning(path, monkeypatch):
    fixture, method, model, batch = classifier(path, "finetune", monkeypatch, "mean")
    theirs = fixture.under("finetune/param/")
    norm = {"scale": theirs["fc_norm.weight"], "bias": theirs["fc_norm.bias"]}
    params = {"model": model, "head": {"norm": norm, "linear": linear(theirs)}}
    found = jax.jit(method.logits)(params, batch["image"])
    assert_output(found, fixture["finetune/logits"])
    grads, metrics = jax.jit(method.updates[0].gradient, static_argnums=4)(
        params, {"train": batch}, KEY, jnp.int32(0), ()
    )
    np.testing.assert_allclose(metrics["loss"], fixture["finetune/ce"], rtol=1e-5)
    expected = fixture.under("finetune/grad/")
    head = grads["head"]
    of_top = {
        "fc_norm.weight": head["norm"]["scale"],
        "fc_norm.bias": head["norm"]["bias"],
        "head.weight": head["linear"]["kernel"].T,
        "head.bias": head["linear"]["bias"],
    }
    of_encoder = {name: a for name, a in expected.items() if name not in of_top}
    ours = to_theirs(grads["model"], of_encoder)
    ours |= {name: np.asarray(array) for name, array in of_top.items()}
    assert_gradients(ours, expected)


@pytest.mark.parametrize("path", files("eval_tools", "lars/"))
def test_layer_decay_and_weight_decay(path):
    """Of every parameter by its name; where ours are stacked, of its layer."""
    groups = Fixture(path).meta.get("lr_decay")
    if not groups:
        pytest.skip("no layer decay in this fixture")
    for group in groups:
        config = default_config("finetune")
        config.model.width, config.model.heads = 16, 2
        config.model.depth, config.model.positions = group["depth"], "learned"
        method = methods.load("finetune").build(config, Run(1, 10, classes=2))
        params = jax.eval_shape(method.init, KEY)
        scales = finetune.layer_scales(params, group["depth"], group["layer_decay"])
        decays = decay_mask(params, finetune.SPARED)
        # Their head in our tree; the other names are those of pre-training.
        top = {"fc_norm": "norm", "head": "linear"}
        kinds = {"fc_norm.weight": "scale", "head.weight": "kernel"}

        def of(tree, name, top=top, kinds=kinds):
            part = name.partition(".")[0]
            if part in top:
                return tree["head"][top[part]][kinds.get(name, "bias")]
            return leaf_of(tree["model"], name)

        decays = jax.tree.map(
            lambda leaf, shape: np.full(shape.shape[:1], leaf), decays, params
        )
        for name, (scale, decay) in group["groups"].items():
            np.testing.assert_allclose(of(scales, name), scale, rtol=1e-6, err_msg=name)
            wanted = decay / group["weight_decay"]
            assert np.all(of(decays, name) == wanted), name
        assert len(group["groups"]) == 12 * group["depth"] + 8


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
