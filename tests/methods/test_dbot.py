"""dBOT: targets, loss, stages with promotion, and teachers that come from elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.config import ConfigError, validate
from sgmae_jax.methods.dbot import Phase, feature_loss, feature_targets
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.training.state import enter_stage, with_given
from sgmae_jax.weights.export import TENSORS
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

STEP = jnp.int32(0)


def config_of(**own):
    return tiny_config("dbot", **{f"method__{name}": own[name] for name in own})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return first_stage(tmp_path_factory.mktemp("teacher"))


def test_the_loss_in_closed_form():
    gap = jnp.array([0.0, 0.5, 2.0, -2.0, 5.0, -7.0])
    expected = [0.0, 0.0625, 1.0, 1.0, 4.0, 6.0]
    for d, value in zip(gap, expected, strict=True):
        args = jnp.full((1, 1, 3), d), jnp.zeros((1, 1, 3)), jnp.ones((1, 1))
        np.testing.assert_allclose(feature_loss(*args, 2.0), value)
    one = jnp.ones((1, 1))
    slope = jax.grad(
        lambda d: feature_loss(d[None, None, None], 0 * one[None], one, 2.0)
    )
    for corner in (2.0, -2.0):  # no jump of the derivative where the parts meet
        left, right = (
            slope(jnp.float32(corner - 1e-4)),
            slope(jnp.float32(corner + 1e-4)),
        )
        np.testing.assert_allclose(left, right, atol=1e-3)


def test_hidden_patches_and_the_class_token_count():
    """147 + 1 of 197 tokens for ViT-B/16."""
    errors = jnp.zeros((2, 197, 4)).at[:, 0].set(3.0).at[:, 1:148].set(2.0)
    weight = jnp.zeros((2, 197)).at[:, :148].set(1.0)
    value = feature_loss(errors, jnp.zeros_like(errors), weight, 2.0)
    np.testing.assert_allclose(value, (2.0 + 147 * 1.0) / 148, rtol=1e-6)


@pytest.mark.parametrize("cls_weight", [0.0, 1.0, 5.0])
def test_the_weight_of_the_class_token(cls_weight):
    state = start(build(config_of()))
    found = [
        gradients(
            build(config_of(cls_weight=weight)),
            0,
            state,
            batch_of(),
            STEP,
            Phase(0.75, 2),
        )[1]
        for weight in (0.0, cls_weight)
    ]
    hidden, both = found[0]["loss"], found[1]["loss"]
    expected = (18 * hidden + cls_weight * found[1]["cls_loss"]) / (18 + cls_weight)
    np.testing.assert_allclose(both, expected, rtol=1e-5)


def test_a_teacher_of_no_blocks_gives_standardised_patches_and_positions():
    model = make_autoencoder(tiny_config())
    params = model.init(KEY)
    images = batch_of(4)["image"]
    found = feature_targets(model.stream(params, images, 0), norm_target=True)
    tokens = np.asarray(model.embed(params, images), np.float64)
    centred = tokens - tokens.mean(-1, keepdims=True)
    expected = centred / np.sqrt(tokens.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found[:, 1:], expected, atol=2e-5)


def test_streams_of_all_depths_and_the_last_norm():
    model = make_autoencoder(tiny_config())
    params = model.init(KEY)
    images = batch_of(2)["image"]
    encoded = model.encode(params, images, capture=("features",))
    for depth in (1, 2):
        found = model.stream(params, images, depth)
        layer = encoded.captured["features"][depth - 1]
        np.testing.assert_allclose(found, layer, rtol=1e-5, atol=1e-6)
    normed = model.stream(params, images, 2, normed=True)
    np.testing.assert_allclose(normed[:, 0], encoded.cls, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normed[:, 1:], encoded.patches, rtol=1e-5, atol=1e-5)
    for depth in (-1, 3):
        with pytest.raises(ValueError, match=r"depth|layers"):
            model.stream(params, images, depth)


def test_stages_from_the_random_teacher_to_a_promoted_one():
    """A run over its boundary, as the loop makes it."""
    config = config_of(teacher_depths=(0, None))
    config.optim.warmup_epochs = 0.2
    method = build(config, steps=7)
    assert [stage.begin for stage in method.stages] == [4]
    assert [method.phase(step, {}).depth for step in range(7)] == [0] * 4 + [2] * 3
    state, step = start(method), stepper(method)
    teacher = state.params["teacher"]["encoder"]
    jax.tree.map(
        np.testing.assert_array_equal, teacher, state.params["model"]["encoder"]
    )
    rates = []
    for number in range(7):
        if number == 4:
            before = jax.device_get(state.params)
            jax.tree.map(
                np.testing.assert_array_equal, before["teacher"]["encoder"], teacher
            )
            state = jax.jit(lambda state: enter_stage(method, method.stages[0], state))(
                state
            )
            promoted, renewed = (
                state.params["teacher"]["encoder"],
                state.params["model"],
            )
            old = before["model"]["encoder"]
            jax.tree.map(np.testing.assert_array_equal, promoted, old)
            kernels = (
                renewed["encoder"]["patch_embed"]["kernel"],
                old["patch_embed"]["kernel"],
            )
            assert not np.array_equal(*kernels)
            assert not renewed["encoder"]["patch_embed"]["bias"].shape == () and not (
                np.array_equal(
                    renewed["encoder"]["patch_embed"]["bias"],
                    old["patch_embed"]["bias"],
                )
            )
            assert int(optax.tree.get_all_with_path(state.opt, "count")[0][1]) == 0
            assert float(optax.tree.norm(optax.tree.get(state.opt, "mu"))) == 0
        state, metrics = step(state, {"train": batch_of()}, method.phase(number, {}))
        rates.append(float(metrics["lr"]))
        assert int(metrics["skipped"]) == 0
    assert rates[:3] == rates[4:] and rates[0] == 0 < rates[1]
    assert step._cache_size() == 2


def test_the_released_renewal_keeps_one_bias():
    params = start(build(config_of())).params
    params["model"]["encoder"]["patch_embed"]["bias"] += 1
    for renew, kept in (("all", False), ("released", True)):
        stage = build(config_of(renew=renew)).stages[0]
        after = stage.enter(params, KEY)["model"]["encoder"]["patch_embed"]
        before = params["model"]["encoder"]["patch_embed"]
        assert np.array_equal(after["bias"], before["bias"]) == kept
        assert not np.array_equal(after["kernel"], before["kernel"])


def test_drop_path_follows_the_example_and_is_one_on_average():
    from sgmae_jax.models.layers import drop_path_scales

    keys = jax.random.split(KEY, 4000)
    scales = drop_path_scales(keys, depth=3, rate=0.4)
    assert scales.shape == (3, 2, 4000)
    np.testing.assert_array_equal(scales[0], 1.0)
    np.testing.assert_allclose(scales.mean(-1), 1.0, atol=0.05)
    np.testing.assert_allclose((scales == 0).mean(-1)[1:, 0], [0.2, 0.4], atol=0.03)
    np.testing.assert_array_equal(
        drop_path_scales(keys[7:9], depth=3, rate=0.4), scales[..., 7:9]
    )


def test_dropped_branches_are_left_out():
    model = make_autoencoder(tiny_config())
    params, images = model.init(KEY), batch_of(3)["image"]
    tokens = model.embed(params, images)
    from sgmae_jax.masking import select

    mask = select(jnp.zeros((3, 24)), 24)
    ones, none = jnp.ones((2, 2, 3)), jnp.zeros((2, 2, 3))
    plain = model.predict(params, tokens, mask)
    same = model.predict(params, tokens, mask, scales=(ones, jnp.ones((1, 2, 3))))
    np.testing.assert_allclose(plain.tokens, same.tokens, rtol=1e-6)
    without = model.predict(params, tokens, mask, scales=(none, None))
    kept = model.stream(params, images, 0, normed=True)
    np.testing.assert_allclose(without.latent, kept, rtol=1e-5, atol=1e-5)


def test_drop_path_disturbs_the_student_alone():
    state = start(build(config_of()))
    args = (0, state, batch_of(), STEP, Phase(0.75, 2))
    calm, noisy = (
        gradients(build(config_of(drop_path=rate)), *args)[1] for rate in (0.0, 0.5)
    )
    assert abs(float(calm["loss"] - noisy["loss"])) > 1e-5
    np.testing.assert_array_equal(calm["target_deviation"], noisy["target_deviation"])


def test_an_exported_encoder_is_the_first_teacher(teacher):
    config = config_of(teacher=teacher)
    validate(config)
    method = build(config)
    state = start(method)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    given = with_given(method, state, shardings).params["teacher"]
    expected = build(tiny_config()).init(jax.random.key(9))["model"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, given["encoder"], expected)
    jax.tree.map(np.testing.assert_array_equal, given, method.given()["teacher"])


def test_a_wider_teacher_widens_the_head(tmp_path):
    wide = first_stage(tmp_path, model__width=48, model__heads=3, model__depth=3)
    config = config_of(teacher=wide, stages=1, teacher_depths=(3,))
    validate(config)
    method = build(config)
    state = start(method)
    assert state.params["model"]["decoder"]["pred"]["kernel"].shape == (16, 48)
    _, metrics = gradients(method, 0, state, batch_of(), STEP, method.phase(0, {}))
    assert np.isfinite(metrics["loss"])
    with pytest.raises(ConfigError, match="must be 1 with a teacher"):
        build(config_of(teacher=wide))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "nowhere"}, "must be a run directory"),
        ({"teacher_depths": (1,)}, "one entry a stage"),
        ({"teacher_depths": (1, 3)}, "at most 2 in stage 1"),
        ({"teacher_depths": (1, -1)}, "one depth a stage"),
        ({"teacher_depths": 2}, "one depth a stage"),
        ({"stages": 0}, ">= 1"),
        ({"beta": 0.0}, "> 0"),
        ({"drop_path": 1.0}, "< 1"),
        ({"renew": "some"}, "one of all, released"),
    ],
    ids=str,
)
def test_bad_fields_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        config = config_of(**changes)
        validate(config)
        build(config)


def test_a_warm_up_longer_than_a_stage_is_refused():
    config = config_of()
    config.optim.warmup_epochs = 0.6
    with pytest.raises(ConfigError, match=r"less than a stage, 0\.5 epochs"):
        build(config)


def test_a_teacher_of_other_patches_is_refused(tmp_path):
    other = first_stage(tmp_path, model__patch_size=8)
    with pytest.raises(ConfigError, match="must take this run's patches"):
        validate(config_of(teacher=other))


def test_a_damaged_teacher_is_refused(tmp_path):
    path = first_stage(tmp_path)
    content = bytearray((tmp_path / TENSORS).read_bytes())
    content[-1] ^= 1
    (tmp_path / TENSORS).write_bytes(content)
    with pytest.raises(ConfigError, match="sha256"):
        build(config_of(teacher=path)).given()
