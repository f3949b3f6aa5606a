"""SMA as the loop sees it: rows, bytes and images; devices, masks, heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax import methods
from sgmae_jax.config import ConfigError, default_config, flatten, validate
from sgmae_jax.data.columns import Column, Columns, Target, to_json
from sgmae_jax.methods import sma_pretrained
from sgmae_jax.methods.base import Run
from sgmae_jax.methods.row_losses import reconstruction_error
from sgmae_jax.models.sma import Inputs
from sgmae_jax.training.mesh import put_batch, state_shardings
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import make_step
from tests.methods.cases import KEY, batch_of, stepper

pytestmark = pytest.mark.usefixtures("quick_compilation")
NUMBERS = Columns(tuple(Column(f"c{i}", mean=0.0) for i in range(12)))
MIXED = Columns(
    (
        *(Column(f"c{i}", mean=0.0, missing=i == 0) for i in range(6)),
        Column("words", categories=("a", "b", "c"), first=1, missing=True),
        Column("more", categories=("x", "y"), first=4),
    )
)
FACTS = {
    "numbers": {"kind": "columns", **to_json(NUMBERS)},
    "mixed": {"kind": "columns", **to_json(MIXED)},
    "bytes": {"kind": "bytes", "length": 20},
}


def config_of(method="sma", source="table", **changes):
    config = default_config(method)
    config.steps = 10
    config.data.source, config.data.path = source, "somewhere"
    config.data.batch_size = 16
    config.model.width, config.model.depth, config.model.heads = 16, 2, 4
    config.model.mlp_ratio, config.model.decoder_heads = 1.0, 2
    config.mask.ratio = 0.3
    config.optim.base_lr = 0.1
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def build(config, kind="numbers", target=None, classes=0, steps=10, frozen=None):
    facts = {"inputs": FACTS[kind], "target": target and to_json(target)}
    run = Run(10, steps, 64, frozen or {}, classes, facts=facts)
    return methods.load(config.method.name).build(config, run)


def rows_of(kind="numbers", count=16, first=0, epoch=0):
    """Rows; each the same whatever batch it is in."""
    ids = np.arange(first, first + count, dtype=np.int32)
    made = []
    for i in ids:
        rng = np.random.default_rng(int(i))
        if kind == "bytes":
            length = 5 + i % 16
            symbols = np.where(np.arange(20) < length, rng.integers(70, 74, 20), 0)
            row = {"valid": np.arange(20) < length, "symbols": symbols}
        else:
            columns = 12 if kind == "numbers" else 8
            base = rng.standard_normal((1, 1))
            values = base + 0.1 * rng.standard_normal((columns, 1))
            row = {"valid": np.ones(columns, bool), "values": values}
        if kind == "mixed":
            symbols = np.full(8, -1)
            symbols[6:] = rng.integers(0, 4), rng.integers(4, 6)
            symbols[0] = 0 if i % 4 == 0 else -1
            row["symbols"] = symbols
        made.append(row)
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    kinds = {"valid": bool, "values": np.float32, "symbols": np.int32}
    return {
        **{name: rows.astype(kinds[name]) for name, rows in batch.items()},
        "id": ids,
        "epoch": np.full(count, epoch, np.int32),
        "label": (ids % 3).astype(np.int32),
        "target": (ids % 3 - 1).astype(np.float32),
    }


@functools.cache
def made(kind, **changes):
    """(method, state, step) of a kind of rows."""
    source = "text" if kind == "bytes" else "table"
    method = build(config_of(source=source, **changes), kind, steps=30)
    state = jax.jit(functools.partial(init_state, method))(KEY)
    return method, state, stepper(method)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("numbers", {}),
        ("mixed", {"method__target_clip": 2.0}),
        ("bytes", {"method__tied": True, "method__mask_token": True}),
        ("bytes", {"method__encoder_type": "latent", "method__latents": 6}),
    ],
)
def test_a_few_steps_lower_the_loss_in_one_program(kind, changes):
    _, state, step = made(kind, **changes)
    batch, losses = {"train": rows_of(kind)}, []
    for _ in range(30):
        state, metrics = step(state, batch, ())
        losses.append(float(metrics["loss"]))
        assert not int(metrics["skipped"])
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert step._cache_size() == 1


@functools.cache
def shown():
    method, state, _ = made("bytes")
    return jax.jit(method.picture, static_argnums=4), state.params


def hidden_of(batch, step=0):
    look, params = shown()
    return np.asarray(look(params, batch, KEY, step, ()).hidden)


def test_masks_follow_ids_and_epochs_and_have_the_right_size():
    whole = hidden_of(rows_of("bytes"))
    lengths = rows_of("bytes")["valid"].sum(1)
    wanted = np.round(np.float32(0.3) * lengths.astype(np.float32))
    np.testing.assert_array_equal(whole.sum(1), wanted)
    back = {name: rows[::-1] for name, rows in rows_of("bytes").items()}
    np.testing.assert_array_equal(hidden_of(back), whole[::-1])
    assert not np.array_equal(hidden_of(rows_of("bytes", epoch=1)), whole)


def test_the_baseline_differs_in_its_scores_alone():
    guided, state, _ = made("numbers", method__head_mix="random_mix")
    random, _, _ = made(
        "numbers", method__head_mix="random_mix", method__scores="random"
    )
    early = made("numbers", method__random_start=1.0, method__random_until=1.0)[0]
    batch = rows_of()
    look = functools.partial(jax.jit, static_argnums=4)
    one, two, three = (
        look(m.picture)(state.params, batch, KEY, 0, ())
        for m in (guided, random, early)
    )
    np.testing.assert_array_equal(one.hidden.sum(1), two.hidden.sum(1))
    assert not np.array_equal(one.hidden, two.hidden)
    np.testing.assert_array_equal(three.hidden, two.hidden)
    # Scores of a run are of random masks, whatever it trained with.
    ours, theirs = (jax.jit(m.answer)(state.params, batch) for m in (guided, random))
    for name, rows in ours.items():
        np.testing.assert_array_equal(rows, theirs[name])


def test_no_gradient_comes_through_the_choice_of_masks():
    method, state, _ = made("numbers")
    act = jax.jit(method.updates[0].gradient, static_argnums=4)
    gradients, _ = act(state.params, {"train": rows_of()}, KEY, 0, ())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    # A key bias shifts all logits of a query alike: softmax does not see it.
    bias = gradients["model"]["encoder"]["first"]["key"]["bias"]
    assert np.abs(bias).max() < 1e-6


def test_two_devices_do_what_one_does():
    method, _, _ = made("bytes")
    found = []
    for grid in ((1, 1), (1, 2)):  # the batch is divided over both axes
        auto = (jax.sharding.AxisType.Auto,) * 2
        devices = jax.devices()[: grid[0] * grid[1]]
        mesh = jax.make_mesh(grid, ("data", "fsdp"), auto, devices=devices)
        state = init_state(method, KEY)
        state = jax.device_put(state, state_shardings(state, mesh))
        step = jax.jit(make_step(method), static_argnums=2)
        state, metrics = step(state, {"train": put_batch(rows_of("bytes"), mesh)}, ())
        found.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    np.testing.assert_allclose(found[0], found[1], rtol=5e-6)


def test_symbols_compete_with_those_of_their_column_alone():
    batch = rows_of("mixed")
    inputs = Inputs(*(jnp.asarray(batch[n]) for n in ("valid", "values", "symbols")))
    logits = np.zeros((16, 8, 1 + 6), np.float32)
    logits[..., 1 + 4 :] = 100  # far likelier, but no word of the column "words"
    everything = jnp.ones((16, 8))
    error = reconstruction_error(
        inputs, jnp.asarray(logits), everything, allowed=jnp.asarray(MIXED.allowed())
    )
    gone = batch["symbols"][:, 0] == 0  # a number that is missing cannot be predicted
    np.testing.assert_array_equal(error.inputs, np.where(gone, 7, 8))
    squares = np.square(batch["values"][:, :6, 0])
    wanted = squares.sum(1) - np.where(gone, squares[:, 0], 0) + np.log(4) + np.log(2)
    np.testing.assert_allclose(error.total, wanted, rtol=1e-5)


def test_clipped_targets_are_what_is_compared():
    values = jnp.asarray([[[5.0], [-0.5]]])
    inputs = Inputs(jnp.ones((1, 2), bool), values)
    error = reconstruction_error(inputs, jnp.zeros((1, 2, 1)), jnp.ones((1, 2)), clip=2)
    np.testing.assert_allclose(error.mean(), (4 + 0.25) / 2)


@pytest.mark.parametrize(("patch", "tokens"), [(1, 64), (4, 4)])
def test_images_are_pixels_or_patches(patch, tokens):
    config = config_of(source="synthetic", model__patch_size=patch, data__image_size=8)
    run = Run(10, 10, 64, {}, 10)
    method = methods.load("sma").build(config, run)
    state = init_state(method, KEY)
    batch = {**batch_of(4), "image": batch_of(4)["image"][:, :8, :8]}
    picture = jax.jit(method.picture, static_argnums=4)(state.params, batch, KEY, 0, ())
    assert picture.hidden.shape == (4, tokens)
    assert picture.prediction.shape == (4, tokens, 3 * patch**2)
    np.testing.assert_array_equal(picture.hidden.sum(1), round(0.3 * tokens))
    assert method.features["encoder"](state.params, batch["image"]).shape == (4, 16)


def test_images_are_classified_from_their_patches():
    config = config_of("sma_finetune", "synthetic", data__image_size=8)
    method = methods.load("sma_finetune").build(config, Run(10, 10, 64, {}, 10))
    params = jax.eval_shape(method.init, KEY)
    images = jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)
    assert jax.eval_shape(method.logits, params, images).shape == (4, 10)
    assert jax.eval_shape(method.features["encoder"], params, images).shape == (4, 16)
    batch = {
        "image": images,
        "label": jax.ShapeDtypeStruct((4,), np.int32),
        "id": jax.ShapeDtypeStruct((4,), np.int32),
        "epoch": jax.ShapeDtypeStruct((4,), np.int32),
    }
    act = functools.partial(method.updates[0].gradient, step=0, phase=())
    gradients, metrics = jax.eval_shape(act, params, {"train": batch}, KEY)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    assert metrics["loss"].shape == ()


def test_the_decoder_may_have_queries_of_its_own():
    method = build(config_of(method__own_queries=True))
    params = jax.eval_shape(method.init, KEY)
    assert params["model"]["decoder"]["query"].shape == (12, 16)
    shown = jax.eval_shape(
        functools.partial(method.picture, step=0, phase=()), params, rows_of(), KEY
    )
    assert shown.prediction.shape == (16, 12, 1)


TARGETS = {
    "number": Target("y", mean=10.0, std=2.0),
    "two": Target("y", classes=("no", "yes"), counts=(8, 8)),
    "three": Target("y", classes=("a", "b", "c"), counts=(6, 5, 5)),
}


@pytest.mark.parametrize(
    ("target", "loss", "outputs"),
    [
        ("number", "auto", 1),
        ("two", "auto", 1),
        ("two", "cross_entropy", 2),
        ("two", "mse", 1),
        ("three", "auto", 3),
    ],
)
def test_heads_learn_numbers_and_classes(target, loss, outputs):
    part = TARGETS[target]
    config = config_of("sma_finetune", table__target="y", method__loss=loss)
    if target == "number":
        config.table.task = "regression"
        config.method.dropout, config.method.attention_dropout = 0.02, 0.02
        config.method.drop_path = 0.02
    method = build(config, target=part, classes=len(part.classes), steps=60)
    state = jax.jit(functools.partial(init_state, method))(KEY)
    assert state.params["head"]["pred"]["bias"].shape == (outputs,)
    batch = rows_of()
    sign = batch["values"].mean((1, 2))
    if part.classes:
        batch.pop("target")
        batch["label"] = np.digitize(sign, [0.0, 0.7][: len(part.classes) - 1])
        batch["label"] = batch["label"].astype(np.int32)
    else:
        batch.pop("label")
        batch["target"] = sign
    step = stepper(method)
    for _ in range(60):
        state, _ = step(state, {"train": batch}, ())
    answer = np.asarray(method.answer(state.params, batch)["answer"])
    if part.classes:
        assert (answer.argmax(1) == batch["label"]).mean() > 0.75
    else:  # in the target's own units
        off = answer[:, 0] - (10 + 2 * sign)
        assert np.sqrt(np.mean(off**2)) < 0.6 * 2 * sign.std()


def test_the_encoder_that_is_given_decides_the_sizes():
    first = config_of(model__width=24)
    fields = {name: flatten(first)[name] for name in sma_pretrained._FIELDS}
    frozen = {"model": {**fields, "inputs": FACTS["numbers"]}}
    config = config_of("sma_finetune", table__target="y")
    method = build(config, target=TARGETS["two"], classes=2, frozen=frozen)
    shapes = jax.eval_shape(method.init, KEY)
    assert shapes["model"]["encoder"]["position"].shape == (12, 24)
    theirs = jax.eval_shape(build(first).init, KEY)["model"]["encoder"]
    assert jax.tree.map(lambda leaf: leaf.shape, theirs) == jax.tree.map(
        lambda leaf: leaf.shape, shapes["model"]["encoder"]
    )


BAD = [
    ("sma", {"mask__fn": "sgmae_jax.masking:block_mask"}, "mask.fn"),
    ("sma", {"mask__ratio_end": 0.5}, "mask.ratio_end"),
    ("sma", {"method__encoder_type": "latent", "method__mask_self": True}, "mask_self"),
    ("sma", {"method__latent_width": 8}, "latent_width"),
    ("sma", {"method__qk_width": 10}, "method.qk_width"),
    ("sma", {"model__decoder_heads": 3}, "model.width"),
    ("sma", {"model__width": None}, "model.width"),
    ("sma", {"model__attention": "xla"}, "model.attention"),
    ("sma", {"data__path": ""}, "data.path"),
    ("sma", {"table__packed": True}, "table.packed"),
    ("sma", {"table__delimiter": ";;"}, "table.delimiter"),
    ("sma", {"table__columns": ("a",), "table__ignore": ("a",)}, "table.columns"),
    ("sma", {"table__metric": "rmse"}, "table.metric"),
    ("sma", {"table__columns": "a"}, "table.columns"),
    ("sma_finetune", {}, "table.target"),
    ("sma_finetune", {"table__target": "y", "method__encoder": "no"}, "method.encoder"),
    ("mae", {}, "holds rows, method mae takes images"),
]


@pytest.mark.parametrize(("method", "changes", "words"), BAD)
def test_a_bad_config_names_the_field(method, changes, words):
    with pytest.raises(ConfigError) as caught:
        validate(config_of(method, **changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_losses_must_suit_the_target():
    for target, loss in (("three", "bce"), ("number", "cross_entropy")):
        config = config_of("sma_finetune", table__target="y", method__loss=loss)
        part = TARGETS[target]
        with pytest.raises(ConfigError, match=r"method\.loss"):
            build(config, target=part, classes=len(part.classes))
    with pytest.raises(ConfigError, match=r"method\.tied"):
        build(config_of(method__tied=True))
