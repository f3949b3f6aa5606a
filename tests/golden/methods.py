"""A method of ours with the authors' model, parameters, images and randomness."""

from __future__ import annotations

import importlib

import jax.numpy as jnp
import numpy as np

from sgmae_jax.config import default_config
from sgmae_jax.masking import num_keep, select
from sgmae_jax.methods.base import Run
from tests.golden.fixtures import Fixture

MASK_FN = "tests.golden.methods:noise_mask"


def noise_mask(keys, context, *, ratio, path):
    """MAE's mask from the uniform noise that a fixture holds."""
    del keys, context
    noise = jnp.asarray(Fixture(path)["in/noise"])
    return select(noise, num_keep(noise.shape[1], ratio))


def method_of(monkeypatch, name, fixture, model, path=None, steps=10, **own):
    """Our method, around a given autoencoder.

    Args:
        monkeypatch: pytest's.
        name: of the method.
        fixture: for the constants that all have.
        model: takes the place of the one that the config would describe.
        path: of the fixture, where its noise makes the masks.
        steps: length of the run, five to an epoch.
        own: the method's fields.
    """
    module = importlib.import_module(f"sgmae_jax.methods.{name}")
    monkeypatch.setattr(module, "make_autoencoder", lambda config, **sizes: model)
    meta = fixture.meta
    config = default_config(name)
    config.data.image_size = meta["img"]
    config.model.patch_size = meta["patch"]
    config.mask.ratio = meta["mask_ratio"]
    if path is not None:
        config.mask.fn = MASK_FN
        config.mask.options.path = str(path)
    if "norm_pix_loss" in meta:
        config.method.norm_pix = meta["norm_pix_loss"]
    for field, value in own.items():
        config.method[field] = value
    frozen = {"scorer": {}} if name == "automae" else {}
    return module.build(config, Run(5, steps, 100, frozen))


def batch_of(fixture):
    """Their images as a batch of ours; floats pass as already standardised."""
    images = jnp.asarray(fixture["in/images_nchw"].transpose(0, 2, 3, 1))
    ids = jnp.arange(len(images))
    return {"image": images, "id": ids, "epoch": 0 * ids}


def assert_scalar(ours, theirs, *, rtol=1e-5):
    """A loss or a part of one."""
    np.testing.assert_allclose(float(ours), float(theirs), rtol=rtol, atol=1e-7)
