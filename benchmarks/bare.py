"""A masked autoencoder's training step written by hand: jax.numpy and nothing else.

The same mathematics as `sgmae_jax` with the MAE method, without its mesh, guard,
gate, checkpoint state, Flax or mask contract: what the framework is measured against.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Sizes(NamedTuple):
    """Sizes of a square MAE."""

    image: int = 32
    patch: int = 4
    width: int = 96
    depth: int = 4
    heads: int = 3
    decoder_width: int = 64
    decoder_depth: int = 1
    decoder_heads: int = 2
    ratio: float = 0.75

    @property
    def side(self) -> int:
        return self.image // self.patch

    @property
    def kept(self) -> int:
        return int(self.side**2 * (1 - self.ratio))


def sincos(width: int, side: int) -> np.ndarray:
    """Position table f32[1 + side * side, width], column first, zeros for CLS."""
    omega = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.mgrid[:side, :side].reshape(2, -1)
    parts = [f(x[:, None] * omega) for x in (column, row) for f in (np.sin, np.cos)]
    table = np.concatenate(parts, 1)
    return np.concatenate([np.zeros((1, width)), table]).astype(np.float32)


def init(key: jax.Array, sizes: Sizes) -> dict:
    """Parameters; layers stacked on a leading axis."""
    keys = iter(jax.random.split(key, 64))

    def dense(shape):
        scale = (6 / (shape[-2] + shape[-1])) ** 0.5
        kernel = jax.random.uniform(next(keys), shape, jnp.float32, -scale, scale)
        return {"kernel": kernel, "bias": jnp.zeros((*shape[:-2], shape[-1]))}

    def norm(*shape):
        return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}

    def blocks(depth, width):
        return {
            "norm1": norm(depth, width),
            "qkv": dense((depth, width, 3 * width)),
            "proj": dense((depth, width, width)),
            "norm2": norm(depth, width),
            "fc1": dense((depth, width, 4 * width)),
            "fc2": dense((depth, 4 * width, width)),
        }

    values = 3 * sizes.patch**2
    return {
        "embed": dense((values, sizes.width)),
        "cls": 0.02 * jax.random.normal(next(keys), (1, 1, sizes.width)),
        "blocks": blocks(sizes.depth, sizes.width),
        "norm": norm(sizes.width),
        "decoder_embed": dense((sizes.width, sizes.decoder_width)),
        "mask": 0.02 * jax.random.normal(next(keys), (1, 1, sizes.decoder_width)),
        "decoder_blocks": blocks(sizes.decoder_depth, sizes.decoder_width),
        "decoder_norm": norm(sizes.decoder_width),
        "pred": dense((sizes.decoder_width, values)),
    }


def _dense(p, x):
    flat = x.reshape(-1, x.shape[-1]) @ p["kernel"] + p["bias"]
    return flat.reshape(*x.shape[:-1], -1)


def _norm(p, x):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-6) * p["scale"] + p["bias"]


def _block(p, x, heads):
    batch, tokens, width = x.shape
    qkv = _dense(p["qkv"], _norm(p["norm1"], x))
    qkv = qkv.reshape(batch, tokens, 3, heads, width // heads)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) * (width // heads) ** -0.5)
    mixed = (weights @ v).swapaxes(1, 2).reshape(batch, tokens, width)
    x = x + _dense(p["proj"], mixed)
    hidden = jax.nn.gelu(_dense(p["fc1"], _norm(p["norm2"], x)), approximate=False)
    return x + _dense(p["fc2"], hidden)


def _stack(p, x, heads, unrolled):
    depth = p["qkv"]["kernel"].shape[0]
    if unrolled:
        for layer in range(depth):
            x = _block(jax.tree.map(lambda leaf, i=layer: leaf[i], p), x, heads)
        return x
    return jax.lax.scan(lambda x, p: (_block(p, x, heads), None), x, p)[0]


def loss_fn(params, images, key, *, sizes: Sizes, unrolled: bool):
    """Loss of one batch: u8 images, per-patch normalised targets, random mask."""
    mean = jnp.array([0.485, 0.456, 0.406])
    std = jnp.array([0.229, 0.224, 0.225])
    images = (images / 255.0 - mean) / std
    batch, side, patch = len(images), sizes.side, sizes.patch
    patches = images.reshape(batch, side, patch, side, patch, 3)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side**2, -1)

    ids = jnp.argsort(jax.random.uniform(key, (batch, side**2)))
    restore = jnp.argsort(ids)
    take = functools.partial(jnp.take_along_axis, axis=1)

    position = sincos(sizes.width, side)
    tokens = _dense(params["embed"], patches) + position[1:]
    kept = take(tokens, ids[:, : sizes.kept, None])
    cls = jnp.broadcast_to(params["cls"] + position[:1], (batch, 1, sizes.width))
    x = _stack(params["blocks"], jnp.concatenate([cls, kept], 1), sizes.heads, unrolled)
    y = _dense(params["decoder_embed"], _norm(params["norm"], x))
    missing = jnp.broadcast_to(
        params["mask"], (batch, side**2 - sizes.kept, sizes.decoder_width)
    )
    full = take(jnp.concatenate([y[:, 1:], missing], 1), restore[:, :, None])
    y = jnp.concatenate([y[:, :1], full], 1) + sincos(sizes.decoder_width, side)
    y = _stack(params["decoder_blocks"], y, sizes.decoder_heads, unrolled)
    prediction = _dense(params["pred"], _norm(params["decoder_norm"], y))[:, 1:]

    centre = patches.mean(-1, keepdims=True)
    spread = patches.var(-1, keepdims=True, ddof=1)
    target = (patches - centre) / jnp.sqrt(spread + 1e-6)
    hidden = (restore >= sizes.kept).astype(jnp.float32)
    error = ((prediction - target) ** 2).mean(-1)
    return (error * hidden).sum() / hidden.sum()


def make_step(sizes: Sizes, optimizer: optax.GradientTransformation, *, unrolled: bool):
    """(params, opt, images, key) -> (params, opt, loss), jitted, state donated."""

    def step(params, opt, images, key):
        loss, grads = jax.value_and_grad(
            functools.partial(loss_fn, sizes=sizes, unrolled=unrolled)
        )(params, images, key)
        change, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, change), opt, loss

    return jax.jit(step, donate_argnums=(0, 1))
