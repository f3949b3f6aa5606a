"""Random erasing: a box of noise in some of the images."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

AREA = (0.02, 1 / 3)  # share of the image, uniform
ASPECT = (0.3, 1 / 0.3)  # height : width, its logarithm uniform
_TRIES = 10


def erase(
    keys: Key[Array, " B"], images: Float[Array, "B H W C"], chance: float
) -> Float[Array, "B H W C"]:
    """Images of which some have a box of standard normal noise in them.

    Of ten boxes the first one that is smaller than the image is taken; none may be.

    Args:
        keys: one an example, so that what is erased does not know its batch.
        images: standardised.
        chance: that an image has a box, in [0, 1].

    Reference: Zhong et al., Random Erasing Data Augmentation (2017); timm's
    RandomErasing in the mode "pixel", with its defaults.
    """
    height, width = images.shape[1:3]

    def one(key: Array, image: Array) -> Array:
        coin, shape, place, noise = jax.random.split(key, 4)
        area, ratio = jax.random.uniform(shape, (2, _TRIES))
        pixels = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
        low, high = map(math.log, ASPECT)
        aspect = jnp.exp(low + (high - low) * ratio)
        tall, wide = jnp.round(jnp.sqrt(jnp.stack([pixels * aspect, pixels / aspect])))
        fits = (tall < height) & (wide < width)
        first = fits.argmax()
        tall, wide = tall[first], wide[first]
        top, left = jax.random.uniform(place, (2,))
        top = jnp.floor(top * (height - tall + 1))
        left = jnp.floor(left * (width - wide + 1))
        row, column = jnp.arange(height)[:, None], jnp.arange(width)
        box = (row >= top) & (row < top + tall)
        box &= (column >= left) & (column < left + wide)
        box &= fits.any() & (jax.random.uniform(coin) < chance)
        filled = jax.random.normal(noise, image.shape, image.dtype)
        return jnp.where(box[..., None], filled, image)

    return jax.vmap(one)(keys, images)
