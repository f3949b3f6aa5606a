"""Small networks with random weights in every leaf, and exports of them."""

from __future__ import annotations

import functools

import jax
import numpy as np

from sgmae_jax.config import assign, default_config, flatten
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.weights import Weights, write_weights

# (image, patch, width, depth, heads), (width, depth, heads) of the decoder
SIZES = {
    "small": ((32, 8, 24, 2, 3), (16, 1, 2)),
    "middle": ((48, 16, 64, 3, 4), (48, 2, 6)),
    "vit_ti": ((64, 16, 192, 12, 3), (64, 2, 4)),
}
FORMATS = ("ours", "timm", "huggingface")


def config_of(size: str = "small", **fields):
    """A config of one of the sizes; `section__field=value` changes it."""
    config = default_config()
    encoder, decoder = SIZES[size]
    names = ("data.image_size", "model.patch_size", "model.width", "model.depth")
    for name, value in zip((*names, "model.heads"), encoder, strict=True):
        assign(config, name, value)
    for name, value in zip(("width", "depth", "heads"), decoder, strict=True):
        assign(config, f"model.decoder_{name}", value)
    for name, value in fields.items():
        assign(config, name.replace("__", "."), value)
    return config


def random_parts(config, seed: int = 0):
    """{"encoder": …, "decoder": …} of NumPy arrays, no leaf at its usual start."""
    model = make_autoencoder(config)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def draw(path, leaf):
        name = path[-1].key
        spread = 0.2 if leaf.ndim < 2 or name == "pos_embed" else leaf.shape[-2] ** -0.5
        values = rng.normal(0, spread, leaf.shape) + (name == "scale")
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def export(config, parts, folder, form="ours"):
    """The parts as an exported folder."""
    card = {
        "method": "mae",
        "config": flatten(config),
        "data_fingerprint": "",
        "step": 0,
        "scores": {},
    }
    return write_weights(form, config, parts, card, folder)


def network(weights: Weights):
    """(config, autoencoder, parameters) of weights that were read."""
    config = default_config()
    for name, value in weights.fields.items():
        assign(config, name, value)
    return config, make_autoencoder(config), weights.parts


def images(config, count: int = 2):
    """Standardised random images [B, H, W, C]."""
    side = config.data.image_size
    shape = (side, side) if isinstance(side, int) else tuple(side)
    rng = np.random.default_rng(7)
    whole = (count, *shape, config.data.channels)
    return rng.normal(size=whole).astype(np.float32)


def tokens_of(model, params, pixels):
    """The encoder's output for whole images [B, 1+N, D]."""
    found = jax.jit(functools.partial(model.encode))(params, pixels)
    return np.concatenate([found.cls[:, None], found.patches], axis=1)


def assert_same(found, wanted):
    """Two trees with the same names, types and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
