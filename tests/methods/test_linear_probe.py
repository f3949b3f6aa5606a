"""The linear probe: what moves, its statistics on many devices, what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sgmae_jax.config import ConfigError, load_config, validate
from sgmae_jax.main import main
from sgmae_jax.models.macs import train_flops
from sgmae_jax.training.state import init_state
from tests.methods.cases import KEY, build, first_stage, stepper, tiny_config
from tests.methods.test_finetune import CLASSES, bright_or_dark, given_state
from tests.tiny import arguments

STEP = jnp.int32(0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return first_stage(tmp_path_factory.mktemp("encoder"))


def config_of(**own):
    return tiny_config("linear_probe", **{f"method__{k}": v for k, v in own.items()})


@pytest.fixture(scope="module")
def method(encoder):
    return build(config_of(encoder=encoder), classes=CLASSES)


@pytest.fixture(scope="module")
def state(method):
    return given_state(method)


def prepared(method, params, batch):
    act = jax.jit(method.prepare, static_argnums=4)
    params, batches, metrics = act(params, {"train": batch}, KEY, STEP, ())
    assert metrics == {}
    return params["statistics"], batches["train"]["features"]


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_it_learns_and_the_encoder_stays(encoder, pool):
    config = config_of(encoder=encoder, pool=pool)
    config.optim.base_lr, config.optim.weight_decay = 200.0, 0.0
    method = build(config, steps=60, classes=CLASSES)
    state, step, batch = given_state(method), stepper(method), bright_or_dark()
    before = jax.tree.map(np.array, state.params)
    found = []
    for _ in range(60):
        state, metrics = step(state, {"train": batch}, ())
        found.append(metrics)
    assert abs(found[0]["loss"] - np.log(CLASSES)) < 0.2
    assert found[-1]["loss"] < 0.5 * found[0]["loss"]
    assert found[-1]["accuracy"] > 0.9 and found[0]["lr"] > 0
    jax.tree.map(np.testing.assert_array_equal, state.params["model"], before["model"])
    for name in ("head", "statistics"):
        for leaf, old in zip(
            jax.tree.leaves(state.params[name]),
            jax.tree.leaves(before[name]),
            strict=True,
        ):
            assert not np.array_equal(leaf, old), name
    # After sixty batches of the same images its running statistics are theirs.
    right = method.logits(state.params, batch["image"]).argmax(-1) == batch["label"]
    assert right.mean() > 0.9


def test_the_optimizer_keeps_nothing_of_the_encoder(method):
    """One momentum of the head, and no gradient of anything else."""
    shapes = jax.eval_shape(lambda: init_state(method, KEY))
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes.opt)]
    head = sum(leaf.size for leaf in jax.tree.leaves(shapes.params["head"]))
    assert head == 33 * CLASSES and head <= sum(sizes) < head + 10
    assert method.updates[0].owns == ("head",)


def test_features_are_standardised_by_their_batch(method, state):
    statistics, features = prepared(method, state.params, bright_or_dark())
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    raw = method.features["encoder"](state.params, bright_or_dark()["image"])
    assert raw.shape == features.shape
    for name, start in (("mean", 0.0), ("var", 1.0)):
        assert not np.allclose(statistics[name], start)


def test_statistics_are_those_of_numpy(encoder):
    config = config_of(encoder=encoder, pool="mean")
    method = build(config, classes=CLASSES)
    params, batch = given_state(method).params, bright_or_dark()
    raw = np.asarray(method.features["encoder"](params, batch["image"]))
    statistics, features = prepared(method, params, batch)
    np.testing.assert_allclose(statistics["mean"], 0.1 * raw.mean(0), rtol=1e-4)
    wanted = 0.9 + 0.1 * raw.var(0, ddof=1)
    np.testing.assert_allclose(statistics["var"], wanted, rtol=1e-5)
    wanted = (raw - raw.mean(0)) / np.sqrt(raw.var(0) + 1e-6)
    np.testing.assert_allclose(features, wanted, rtol=1e-3, atol=1e-4)


def test_statistics_are_of_the_whole_batch_on_many_devices(method, state):
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    batch = bright_or_dark()
    alone = prepared(method, state.params, batch)
    params = jax.device_put(state.params, whole)
    together = prepared(method, params, jax.device_put(batch, spread))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_share_its_statistics(encoder, method, state):
    """Accumulation bounds memory, and changes no number."""
    config = config_of(encoder=encoder)
    config.optim.accumulate = 4
    parts = build(config, classes=CLASSES)
    wanted = prepared(method, state.params, bright_or_dark())
    found = prepared(parts, state.params, bright_or_dark())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_costs_a_forward_pass(method):
    tuned = build(tiny_config("finetune"), classes=CLASSES)
    assert method.flops(()) * 3 == tuned.flops(())
    assert train_flops(1) == 6


def test_what_is_wrong_is_one_line(encoder):
    for own, words in (
        ({"encoder": "nowhere"}, "method.encoder = 'nowhere': must be a run directory"),
        ({"momentum": 1.0}, "method.momentum"),
        ({"trust": 0.0}, "method.trust"),
        ({"pool": "max"}, "method.pool"),
    ):
        with pytest.raises(ConfigError, match=words):
            validate(config_of(**own))
    for section, field, value, words in (
        ("data", "batch_size", 1, "must be at least 2"),
        ("data", "channels", 1, "one a channel"),
        ("model", "patch_size", 8, "must take this run's patches"),
        ("mask", "fn", "sgmae_jax.masking:grid_mask", "makes its own masks or none"),
    ):
        config = config_of(encoder=encoder)
        config[section][field] = value
        with pytest.raises(ConfigError, match=words):
            validate(config)


def test_a_run_is_scored_by_its_running_statistics(tmp_path, capsys):
    run = tmp_path / "run"
    words = arguments(run, steps=2)
    typed = [word.removeprefix("--config.").split("=") for word in words[4:]]
    path = first_stage(tmp_path / "first", load_config("quickstart", typed))
    given = {"method__name": "linear_probe", "method__encoder": path}
    # Larger images than those of the encoder.
    assert main(arguments(run, steps=2, data__image_size=24, **given)) == 0
    assert "own head" in capsys.readouterr().out
    scores = json.loads((run / "scores.json").read_text())["trained encoder"]
    assert set(scores) == {"knn", "probe", "accuracy"} and 0 <= scores["accuracy"] <= 1
