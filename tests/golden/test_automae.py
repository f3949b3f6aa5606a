"""AutoMAE: generator, rectangles, discriminator and losses of the authors' code.

The method draws from keys; here its keys are row numbers and its draws the authors'.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import boosted_mask, gumbel_softmax, rectangle_map
from sgmae_jax.methods import automae
from tests.golden.authors import load
from tests.golden.conversion import to_theirs
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files
from tests.golden.methods import assert_scalar, batch_of, method_of

pytestmark = pytest.mark.parametrize("path", files("automae", "out/lsgan_D"))
STEP = jnp.int32(0)
LAYERS = {"hidden": 0, "logit": 2}
KERNELS = {"conv1": "features.0", "conv2": "conv2.0", "conv3": "conv3.0"}
PURPOSES = {"mask": "in/gumbel_gen", "fake mask": "in/gumbel_disc"}


def conv(array):
    """[O, I, row, column] -> [row, column, I, O]."""
    return jnp.asarray(array.transpose(2, 3, 1, 0))


def generator_from(theirs):
    return {
        name: {
            "kernel": conv(theirs[f"scorer_pred.main.{i}.weight"]),
            "bias": jnp.asarray(theirs[f"scorer_pred.main.{i}.bias"]),
        }
        for name, i in LAYERS.items()
    }


def generator_to(tree):
    return {
        f"main.{i}.{theirs}": np.asarray(tree[name][ours]).transpose(
            (3, 2, 0, 1) if ours == "kernel" else (0,)
        )
        for name, i in LAYERS.items()
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    }


def discriminator_from(fixture, state):
    """Kernels, and the vectors at the stage named by a prefix."""
    kernels = {
        ours: {"kernel": conv(fixture[f"disc/{theirs}.weight_orig"])}
        for ours, theirs in KERNELS.items()
    }
    vectors = {
        ours: {
            "u": jnp.asarray(fixture[f"{state}/{theirs}.weight_u"])[None],
            "sigma": jnp.ones(()),
        }
        for ours, theirs in KERNELS.items()
    }
    return kernels, vectors


class Theirs:
    """The method around a fixture; its randomness replaced by the authors'."""

    def __init__(self, path, monkeypatch, **own):
        self.fixture = fixture = Fixture(path)
        meta, images = fixture.meta, fixture["in/images_nchw"]
        everything = fixture.under("param/")
        rest = {n: a for n, a in everything.items() if not n.startswith("scorer_pred")}
        self.model, tree = load(
            rest, fixture.under("grad/"), images, meta["heads"], meta["dheads"]
        )
        scorer, frozen = load(fixture.under("scorer/"), {}, images, meta["heads"])
        self._patch(monkeypatch)
        monkeypatch.setattr(automae, "frozen_model", lambda fields: scorer)
        self.method = method_of(
            monkeypatch,
            "automae",
            fixture,
            self.model,
            boost=meta["mask_factor_beta"],
            adversarial_weight=meta["loss_g_factor"],
            temperature=float(meta["tau"]),
            rectangle_strength=meta["rectangle_alpha"],
            attention_scale="none",
            **own,
        )
        kernels, vectors = discriminator_from(fixture, "disc")
        self.params = jax.tree.map(
            jnp.asarray,
            {
                "model": tree,
                "generator": generator_from(everything),
                "discriminator": kernels,
                "spectral": vectors,
                "scorer": frozen,
            },
        )
        attention = jnp.asarray(fixture["in/attention"])
        self.batches = {"train": {**batch_of(fixture), "attention": attention}}

    def _patch(self, monkeypatch):
        fixture = self.fixture
        tables = {
            purpose: jnp.asarray(fixture[key]) for purpose, key in PURPOSES.items()
        }
        uniform = jnp.asarray(fixture["in/uniform_noise"])
        rows = len(uniform)
        gumbel = jnp.concatenate(list(tables.values()))

        def keys(key, epoch, ids, purpose):
            del key, epoch
            later = list(tables).index(purpose) if purpose in tables else 0
            return ids + later * rows

        monkeypatch.setattr(automae, "example_keys", keys)
        monkeypatch.setattr(jax.random, "gumbel", lambda key, shape: gumbel[key])
        drawn = jax.random.uniform

        def looked_up(key, shape, *rest):  # initialisers draw with more arguments
            return drawn(key, shape, *rest) if rest else uniform[key]

        monkeypatch.setattr(jax.random, "uniform", looked_up)
        real = jnp.asarray(fixture["out/real_map"])
        monkeypatch.setattr(automae, "rectangles", lambda *_, **__: real)

    def act(self, update, params):
        gradient = jax.jit(self.method.updates[update].gradient, static_argnums=4)
        ratio = self.fixture.meta["mask_ratio"]
        return gradient(params, self.batches, jax.random.key(0), STEP, ratio)


def test_attention_of_the_scorer(path, monkeypatch):
    theirs = Theirs(path, monkeypatch)
    _, batches, _ = jax.jit(theirs.method.prepare, static_argnums=4)(
        theirs.params,
        {"train": batch_of(theirs.fixture)},
        jax.random.key(0),
        STEP,
        theirs.fixture.meta["mask_ratio"],
    )
    assert_output(batches["train"]["attention"], theirs.fixture["in/attention"])


def test_rectangles(path):
    fixture = Fixture(path)
    height, width = fixture["in/rectangle_noise"].shape[1:]
    noise = fixture["in/rectangle_noise"]
    places = []
    for area, length, x, y in fixture["in/rectangle_area_l_x_y"]:
        places.append([min(height, -(-area // length)), length, y, x])
    maps = [
        rectangle_map(
            jnp.asarray(place),
            jnp.asarray(one),
            strength=fixture.meta["rectangle_alpha"],
        )
        for place, one in zip(places, noise, strict=True)
    ]
    assert width == noise.shape[2]
    np.testing.assert_allclose(maps, fixture["out/real_map"], rtol=1e-6)


def test_sample_and_mask(path):
    fixture = Fixture(path)
    meta = fixture.meta
    for out, gumbel in (("M", "gen"), ("M_for_disc", "disc")):
        sample = gumbel_softmax(
            jnp.asarray(fixture["out/logits"]),
            jnp.asarray(fixture[f"in/gumbel_{gumbel}"]),
            meta["tau"],
        )
        assert_output(sample, fixture[f"out/{out}"])
    mask = boosted_mask(
        jnp.asarray(fixture["out/M"]),
        jnp.asarray(fixture["in/uniform_noise"]),
        num_keep=meta["keep"],
        boost=meta["mask_factor_beta"],
    )
    np.testing.assert_array_equal(mask.hidden, fixture["out/mask"])
    np.testing.assert_array_equal(mask.ids_keep, fixture["out/ids_keep"])
    np.testing.assert_array_equal(mask.gate, 1.0)


def test_discriminator(path, monkeypatch):
    theirs = Theirs(path, monkeypatch)
    fixture = theirs.fixture
    gradients, metrics = theirs.act(0, theirs.params)
    assert_scalar(metrics["loss"], fixture["out/lsgan_D"])
    for ours, key in (("real", "out/D_of_real"), ("fake", "out/D_of_fake")):
        scale = np.abs(fixture[key]).max()
        np.testing.assert_allclose(
            metrics[ours], fixture[key].mean(), rtol=0, atol=2e-5 * scale
        )
    expected = fixture.under("grad_disc/")
    found = {}
    for ours, name in KERNELS.items():
        name = name.replace("features", "conv1")
        kernel = np.asarray(gradients["discriminator"][ours]["kernel"])
        found[f"{name}.weight_orig"] = kernel.transpose(3, 2, 0, 1)
    assert_gradients(found, expected)


def test_generator_and_autoencoder(path, monkeypatch):
    theirs = Theirs(path, monkeypatch)
    fixture = theirs.fixture
    _, vectors = discriminator_from(fixture, "disc_after_D_step")
    params = {**theirs.params, "spectral": vectors}
    gradients, metrics = theirs.act(1, params)
    assert_scalar(metrics["loss"], fixture["out/total_generator_loss"])
    assert_scalar(metrics["reconstruction"], fixture["out/mae_loss"])
    assert_scalar(metrics["adversarial"], fixture["out/lsgan_G"])
    expected = fixture.under("grad/")
    of_generator = {n: a for n, a in expected.items() if n.startswith("scorer_pred")}
    of_model = {n: a for n, a in expected.items() if n not in of_generator}
    assert_gradients(to_theirs(gradients["model"], of_model), of_model)
    found = generator_to(gradients["generator"])
    prefix = "scorer_pred."
    assert_generator(
        found, {name.removeprefix(prefix): a for name, a in of_generator.items()}
    )


def assert_generator(found, expected):
    """As other gradients; the last bias has none, a softmax does not see it."""
    last = f"main.{LAYERS['logit']}.bias"
    np.testing.assert_allclose(found.pop(last), expected.pop(last), rtol=0, atol=1e-6)
    assert_gradients(found, expected)


def test_each_part_reaches_the_generator(path, monkeypatch):
    for weight, key in ((0.0, "grad_generator_mae/"), (1.0, "grad_generator_lsgan/")):
        with monkeypatch.context() as patch:
            theirs = Theirs(path, patch)
            theirs.method = method_with(theirs, patch, weight)
            fixture = theirs.fixture
            _, vectors = discriminator_from(fixture, "disc_after_D_step")
            gradients, _ = theirs.act(1, {**theirs.params, "spectral": vectors})
        found = generator_to(gradients["generator"])
        expected = fixture.under(key)
        if weight:  # both parts together, without the first
            first = fixture.under("grad_generator_mae/")
            found = {name: found[name] - first[name] for name in found}
        assert_generator(found, expected)


def method_with(theirs, monkeypatch, weight):
    meta = theirs.fixture.meta
    return method_of(
        monkeypatch,
        "automae",
        theirs.fixture,
        theirs.model,
        boost=meta["mask_factor_beta"],
        adversarial_weight=weight,
        temperature=float(meta["tau"]),
        attention_scale="none",
    )


def test_vectors_of_the_power_iteration(path, monkeypatch):
    """Two passes in their discriminator's step, one in the generator's."""
    theirs = Theirs(path, monkeypatch)
    after = theirs.method.post_update(theirs.params, jnp.int32(1))
    _, expected = discriminator_from(theirs.fixture, "disc_after_G_step")
    for name in KERNELS:
        ours, reference = after["spectral"][name]["u"], expected[name]["u"]
        np.testing.assert_allclose(ours, reference, rtol=0, atol=2e-5)


def test_converted_generator_goes_back(path):
    theirs = Fixture(path).under("param/scorer_pred.")
    ours = generator_from(Fixture(path).under("param/"))
    for name, array in generator_to(ours).items():
        np.testing.assert_array_equal(array, theirs[name])
