"""A small autoencoder with awkward sizes, and inputs for it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.models import Autoencoder, Decoder, Encoder

GRID, PATCH, CHANNELS = (2, 6), (3, 2), 3


def autoencoder(
    *, grid=GRID, patch_size=PATCH, channels=CHANNELS, depth=3, **shared
) -> Autoencoder:
    values = patch_size[0] * patch_size[1] * channels
    return Autoencoder(
        encoder=Encoder(
            grid=grid, patch_values=values, width=24, depth=depth, heads=3, **shared
        ),
        decoder=Decoder(
            grid=grid, out_values=values, width=16, depth=2, heads=2, **shared
        ),
        patch_size=patch_size,
        channels=channels,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


def images_for(model: Autoencoder, batch=2, seed=0, dtype=jnp.float32):
    height, width = (g * p for g, p in zip(model.grid, model.patch_size, strict=True))
    shape = (batch, height, width, model.channels)
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def scores_for(model: Autoencoder, batch=2, seed=1):
    return jax.random.uniform(jax.random.key(seed), (batch, model.encoder.tokens))


def noisy(params, seed=2):
    """Parameters moved off their initial values, so that no bias or scale hides."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype),
        params,
    )


@functools.partial(jax.jit, static_argnames=("model", "capture"))
def predict(model, params, images, mask, *, capture=()):
    """Embedding and `predict`, compiled."""
    tokens = model.embed(params, images)
    return model.predict(params, tokens, mask, capture=capture)


@functools.partial(jax.jit, static_argnames=("model", "capture"))
def encode(model, params, images, *, capture=()):
    """`encode`, compiled."""
    return model.encode(params, images, capture=capture)
