"""Fine-tuning: where it starts, what moves how fast, what it refuses, its accuracy."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.config import ConfigError, load_config, validate
from sgmae_jax.main import main
from sgmae_jax.methods.finetune import layer_scales
from sgmae_jax.models import resize_positions, sincos_table
from sgmae_jax.models.head import cross_entropy
from sgmae_jax.training.state import init_state, with_given
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
from tests.tiny import arguments

STEP = jnp.int32(0)
CLASSES = 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return first_stage(tmp_path_factory.mktemp("encoder"))


def config_of(**own):
    return tiny_config("finetune", **{f"method__{k}": v for k, v in own.items()})


def bright_or_dark(count=16):
    """Images that their mean brightness tells apart, with labels."""
    batch = batch_of(count)
    label = batch["id"] % CLASSES
    image = batch["image"] // 4 + (90 * label[:, None, None, None]).astype(np.uint8)
    return {**batch, "image": image, "label": label}


def given_state(method):
    """The state before step 0 of a run that was given an encoder."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_state(method, KEY))
    return with_given(method, start(method), jax.tree.map(lambda _: here, shapes))


def test_training_starts_from_the_given_encoder(encoder):
    """Whatever sizes the config's own model has; the parameters are the same bits."""
    config = config_of(encoder=encoder)
    config.model.width, config.model.depth = 64, 1
    state = given_state(build(config, classes=CLASSES))
    wanted = build(tiny_config()).init(jax.random.key(9))["model"]["encoder"]
    # The fixed positions are a parameter from here on.
    wanted["pos_embed"] = np.float32(sincos_table((4, 6), 32))
    found = state.params["model"]
    assert set(found) == {"encoder"}
    jax.tree.map(np.testing.assert_array_equal, found["encoder"], wanted)
    assert state.params["head"]["linear"]["kernel"].shape == (32, CLASSES)


def test_without_an_encoder_it_has_the_configs_sizes():
    config = config_of()
    config.model.width = 64
    method = build(config, classes=CLASSES)
    assert method.given() == {}
    shapes = jax.eval_shape(method.init, KEY)
    assert shapes["model"]["encoder"]["cls_token"].shape == (64,)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_it_learns_and_everything_moves(encoder, pool):
    """The class token is no input of a mean, but it is attended to."""
    own = {"pool": pool, "drop_path": 0.1, "layer_decay": 0.9}
    config = config_of(encoder=encoder, **own)
    config.optim.base_lr = 0.08
    method = build(config, steps=40, classes=CLASSES)
    state, step, batch = given_state(method), stepper(method), bright_or_dark()
    before = jax.tree.map(np.array, state.params)
    found = []
    for _ in range(30):
        state, metrics = step(state, {"train": batch}, ())
        found.append(metrics)
    assert found[0]["loss"] > 0.9 and found[-1]["loss"] < 0.5 * found[0]["loss"]
    assert found[-1]["accuracy"] > 0.9
    for (place, leaf), old in zip(
        jax.tree.leaves_with_path(state.params), jax.tree.leaves(before), strict=True
    ):
        names = [entry.key for entry in place]
        # The head has a norm of its own instead.
        still = names[:3] == ["model", "encoder", "norm"]
        assert np.array_equal(leaf, old) == still, names
    right = method.logits(state.params, batch["image"]).argmax(-1) == batch["label"]
    assert right.mean() > 0.9
    assert method.features["encoder"](state.params, batch["image"]).shape == (16, 32)


def test_layer_decay_in_closed_form():
    """Every leaf, after BEiT: what is below the blocks, the blocks, all the rest."""
    config = config_of()
    config.model.depth, config.model.positions = 3, "learned"
    params = jax.eval_shape(build(config, classes=CLASSES).init, KEY)
    scales = layer_scales(params, 3, 0.5)
    seen = set()
    for path, scale in jax.tree_util.tree_leaves_with_path(scales):
        names = [entry.key for entry in path]
        part = names[0] if names[0] == "head" else names[2]
        seen.add(part)
        wanted = {
            "patch_embed": 1 / 16,
            "cls_token": 1 / 16,
            "pos_embed": 1 / 16,
            "blocks": [1 / 8, 1 / 4, 1 / 2],
            "norm": 1.0,
            "head": 1.0,
        }[part]
        np.testing.assert_array_equal(np.ravel(scale), np.ravel(wanted), str(names))
    assert len(seen) == 6


def test_a_step_is_adamws_times_the_decay():
    """Weight decay too, as the rate itself is what the authors scale."""
    params = start(build(config_of(), classes=CLASSES)).params
    grads = jax.tree.map(jnp.ones_like, params)

    def change(decay):
        config = config_of(layer_decay=decay)
        config.optim.weight_decay = 0.1
        optimizer = build(config, classes=CLASSES).updates[0].optimizer
        return optimizer.update(grads, optimizer.init(params), params)[0]

    whole, scaled = change(1.0), change(0.5)
    for name, wanted in (("blocks", [1 / 4, 1 / 2]), ("patch_embed", [1 / 8])):
        of_whole = whole["model"]["encoder"][name]
        of_scaled = scaled["model"]["encoder"][name]
        for a, b in zip(
            jax.tree.leaves(of_scaled), jax.tree.leaves(of_whole), strict=True
        ):
            factor = np.reshape(wanted, (-1,) + (1,) * (b.ndim - 1))
            np.testing.assert_allclose(a, factor * b, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, scaled["head"], whole["head"])


def test_every_variation_is_in_the_loss():
    batch = bright_or_dark()
    plain = build(config_of(head_init=0.02), classes=CLASSES)
    state = start(plain)
    logits = plain.logits(state.params, batch["image"])
    losses = {}
    for own in ({}, {"label_smoothing": 0.3}, {"drop_path": 0.5}, {"mixup": 0.8}):
        method = build(config_of(head_init=0.02, **own), classes=CLASSES)
        _, metrics = gradients(method, 0, state, batch, STEP, ())
        losses[tuple(own)] = float(metrics["loss"])
    for own, smoothing in (((), 0.0), (("label_smoothing",), 0.3)):
        wanted = cross_entropy(logits, batch["label"], smoothing=smoothing)
        np.testing.assert_allclose(losses[own], wanted, rtol=1e-5)
    for name in ("drop_path", "mixup"):
        assert abs(losses[name,] - losses[()]) > 1e-4, name


def test_mixing_goes_by_step_and_erasing_by_example():
    batch = bright_or_dark()
    state = start(build(config_of(), classes=CLASSES))

    def losses(name, value, batch, steps):
        own = {"head_init": 0.5, name: value}
        method = build(config_of(**own), classes=CLASSES)
        act = jax.jit(method.updates[0].gradient, static_argnums=4)
        given = {"train": batch}
        found = [
            act(state.params, given, KEY, jnp.int32(step), ())[1]["loss"]
            for step in steps
        ]
        assert act._cache_size() == 1
        return list(map(float, found))

    later = {**batch, "epoch": batch["epoch"] + 1}
    assert len(set(losses("cutmix", 1.0, batch, (0, 1, 1)))) == 2
    first, second = losses("erase", 1.0, batch, (0, 1))
    assert first == second != losses("erase", 1.0, later, (0,))[0]


@pytest.mark.parametrize("positions", ["sincos", "learned"])
@pytest.mark.parametrize("method", ["finetune", "linear_probe"])
def test_positions_are_interpolated_to_another_grid(positions, method, tmp_path):
    first = tiny_config(model__positions=positions)
    source = build(first).init(jax.random.key(9))["model"]["encoder"]
    table = source.pop("pos_embed", np.float32(sincos_table((4, 6), 32)))
    path = first_stage(tmp_path, first)
    config = tiny_config(method, method__encoder=path, data__image_size=(32, 24))
    validate(config)
    built = build(config, classes=CLASSES)
    found = built.given()["model"]["encoder"]
    wanted = resize_positions(np.asarray(table), (4, 6), (8, 6))
    np.testing.assert_array_equal(found.pop("pos_embed"), wanted)
    jax.tree.map(np.testing.assert_array_equal, found, source)
    shapes = jax.eval_shape(built.init, KEY)["model"]["encoder"]
    assert shapes["pos_embed"].shape == (1 + 48, 32)


def test_class_token_and_positions_do_not_decay():
    config = config_of()
    config.optim.weight_decay, config.model.positions = 0.5, "learned"
    method = build(config, classes=CLASSES)
    shapes = jax.eval_shape(method.init, KEY)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    optimizer = method.updates[0].optimizer
    none = jax.tree.map(jnp.zeros_like, params)
    change, _ = optimizer.update(none, optimizer.init(params), params)
    of_encoder = change["model"]["encoder"]
    for name in ("cls_token", "pos_embed"):
        assert not np.any(of_encoder[name]), name
    assert np.any(of_encoder["patch_embed"]["kernel"])
    assert np.any(change["head"]["linear"]["kernel"])


def test_what_is_wrong_is_one_line(encoder, tmp_path, capsys):
    for own, words in (
        ({"encoder": "nowhere"}, "method.encoder = 'nowhere': must be a run directory"),
        ({"layer_decay": 0.0}, "method.layer_decay"),
        ({"mixup": -0.1}, "method.mixup"),
        ({"cutmix": float("inf")}, "method.cutmix"),
        ({"erase": 1.5}, "method.erase"),
        ({"head_init": 0.0}, "method.head_init"),
    ):
        with pytest.raises(ConfigError, match=words):
            validate(config_of(**own))
    config = config_of(encoder=encoder)
    config.model.patch_size = 8
    with pytest.raises(ConfigError, match="must take this run's patches"):
        validate(config)
    config = config_of()
    config.mask.fn = "sgmae_jax.masking:grid_mask"
    with pytest.raises(ConfigError, match="makes its own masks or none"):
        validate(config)
    from PIL import Image

    for name in "abcd":
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    given = {"data__source": "folder", "data__path": tmp_path}
    for name in ("finetune", "supervised_mae"):
        words = arguments(tmp_path / "run", method__name=name, **given)
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "must have labels" in error and error.count("\n") == 1


def test_a_run_is_evaluated_without_the_encoder_it_began_with(tmp_path, capsys):
    first, run = tmp_path / "first", tmp_path / "run"
    words = arguments(run, steps=2)
    typed = [word.removeprefix("--config.").split("=") for word in words[4:]]
    path = first_stage(first, load_config("quickstart", typed))
    given = {"method__name": "finetune", "method__encoder": path, "steps": 2}
    # Other sizes in the config than those of the encoder.
    assert main(arguments(run, model__depth=2, eval__every=1, **given)) == 0
    assert "own head" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [1, 2]
    scores = json.loads((run / "scores.json").read_text())["trained encoder"]
    assert set(scores) == {"knn", "probe", "accuracy"} and 0 <= scores["accuracy"] <= 1
    shutil.rmtree(first)
    again = tmp_path / "again"
    assert main(["--config", f"evaluate:{run}", "--workdir", str(again)]) == 0
    found = json.loads((again / "evaluation.json").read_text())["scores"]
    assert scores.items() <= found["trained encoder"].items()
    assert "own head" in (run / "report.html").read_text()
    words = ["--config", f"analyze:{run}", "--workdir", str(tmp_path / "look")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "must keep an autoencoder" in error and error.count("\n") == 1
