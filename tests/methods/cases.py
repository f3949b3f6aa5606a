"""Small configs and batches for trying out any method."""

import functools

import jax
import numpy as np

from sgmae_jax import methods
from sgmae_jax.config import default_config, flatten
from sgmae_jax.methods import mlo_mae
from sgmae_jax.methods.base import Run
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import make_step
from sgmae_jax.weights.export import export_encoder

KEY = jax.random.key(5)
EXAMPLES = 64
# MLO-MAE's released preset, for `tiny_config`.
RELEASED = {
    f"method__{name}": value for name, value in mlo_mae.PRESETS["released"].items()
}


def tiny_config(method="mae", **changes):
    """A config of 16x24 pixels; `section__field=value` changes it."""
    config = default_config(method)
    config.steps = 10
    config.data.image_size = (16, 24)
    config.data.batch_size = 16
    config.model.width, config.model.depth, config.model.heads = 32, 2, 2
    config.model.decoder_width, config.model.decoder_heads = 16, 2
    config.model.decoder_depth = 1
    config.optim.base_lr = 2e-2
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def build(config, steps=10, classes=0):
    """The config's method for a run of ten steps an epoch."""
    run = Run(10, steps, EXAMPLES, methods.frozen_networks(config), classes)
    return methods.load(config.method.name).build(config, run)


def batch_of(count=16, first=0, epoch=0):
    """Random images, whole; each the same whatever batch it is in."""
    ids = np.arange(first, first + count, dtype=np.int32)
    images = [
        np.random.default_rng(int(i)).integers(0, 256, (16, 24, 3), np.uint8)
        for i in ids
    ]
    return {
        "image": np.stack(images),
        "label": np.zeros(count, np.int32),
        "id": ids,
        "epoch": np.full(count, epoch, np.int32),
        "view": np.tile(np.float32([0, 1]), (count, 2, 1)),
    }


def start(method):
    """The state before step 0."""
    return jax.jit(functools.partial(init_state, method))(KEY)


def gradients(method, update, state, batch, step, phase):
    """(gradients, metrics) of one of a method's updates, compiled."""
    key = jax.random.wrap_key_data(state.key)
    prepared = jax.jit(method.prepare, static_argnums=4)(
        state.params, {"train": batch}, key, step, phase
    )[1]
    act = jax.jit(method.updates[update].gradient, static_argnums=4)
    return act(state.params, prepared, key, step, phase)


def stepper(method):
    """The compiled training step."""
    return jax.jit(make_step(method), static_argnums=2)


def first_stage(folder, config=None, **changes):
    """An exported, untrained MAE encoder, for methods that need an earlier one."""
    config = config or tiny_config(**changes)
    method = build(config)
    params = jax.jit(method.init)(jax.random.key(9))
    card = {
        "method": "mae",
        "config": flatten(config),
        "data_fingerprint": "",
        "step": 0,
        "scores": {},
    }
    export_encoder(jax.device_get(method.encoder(params)), card, folder)
    return str(folder)
