"""The local Siamese network: points both crops show, negatives, and the teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.config import ConfigError, validate
from sgmae_jax.methods.local_siamese import streams
from tests.methods.cases import batch_of, build, gradients, start, stepper, tiny_config

STEP = jnp.int32(0)
SMALL = {"hidden": 16, "out": 8}


def config_of(**own):
    own = SMALL | own
    return tiny_config(
        "local_siamese", **{f"method__{name}": own[name] for name in own}
    )


def pair_of(count=16, view=((0, 1), (0, 1))):
    batch = batch_of(count)
    other = np.tile(np.float32(view), (count, 1, 1))
    return {**batch, "other_image": batch["image"], "other_view": other}


def test_the_same_crop_twice_is_aligned_and_crops_apart_do_not_count():
    method = build(config_of())
    assert streams(None)["train"].pairs and "decoder" not in start(method).params
    state = start(method)
    _, same = gradients(method, 0, state, pair_of(), STEP, ())
    np.testing.assert_allclose(same["alignment"], 1, rtol=1e-5)
    assert float(same["overlap"]) == 1
    # The second crop lies beside the first.
    apart = pair_of(view=((2, 1), (0, 1)))
    gradient, none = gradients(method, 0, state, apart, STEP, ())
    assert float(none["overlap"]) == 0 == float(none["loss"])
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_it_learns_to_tell_points_apart():
    method = build(config_of())
    state, step = start(method), stepper(method)
    seen = []
    for _ in range(20):
        state, metrics = step(state, {"train": pair_of(view=((0, 1), (1, -1)))}, ())
        seen.append(float(metrics["loss"]))
    assert seen[-1] < seen[0] - 0.1


def test_the_teacher_and_its_centre_follow():
    method = build(config_of(target="ema", momentum=0.9, center_momentum=0.5))
    state, step = start(method), stepper(method)
    before = jax.device_get(state.params)
    state, metrics = step(state, {"train": pair_of()}, ())
    after = jax.device_get(state.params)
    expected = jax.tree.map(
        lambda old, new: 0.9 * old + 0.1 * new,
        before["teacher"],
        {name: after[name] for name in ("model", "projector")},
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        after["teacher"],
        expected,
    )
    assert np.any(after["center"]) and np.isfinite(float(metrics["loss"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "dino"}, "infonce, ema"),
        ({"points": 0}, "integer >= 1"),
        ({"negative_images": 5}, "divide the batch of 16"),
        ({"momentum": 1.5}, "<= 1"),
    ],
)
def test_bad_fields_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        validate(config_of(**changes))
    assert "\n" not in str(error.value) and "config.method." in str(error.value)
