"""One random key an example, so that a mask does not know its batch."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Int, Key


def example_keys(
    key: Key[Array, ""],
    epoch: Int[Array, " B"],
    ids: Int[Array, " B"],
    purpose: str,
) -> Key[Array, " B"]:
    """Keys that follow from (root key, epoch, purpose, example id), nothing else.

    Neither the place in the batch, nor the batch's size, nor the number of devices
    enters, so none of these changes what an example's key draws.

    Args:
        key: root key of the run, `jax.random.key(seed)`.
        epoch: of each example (a batch may span two epochs).
        ids: of each example in its source.
        purpose: what the randomness is for, e.g. "mask"; different purposes give
            independent keys.

    Returns:
        One key an example.

    Raises:
        TypeError: not a typed key, or one of another kind than threefry2x32.
    """
    check_keys(key)
    label = np.uint32(zlib.crc32(purpose.encode()))

    def one(epoch: Array, example: Array) -> Array:
        by_epoch = jax.random.fold_in(key, epoch)
        return jax.random.fold_in(jax.random.fold_in(by_epoch, label), example)

    return jax.vmap(one)(epoch, ids)


def check_keys(keys: Array) -> None:
    """Refuse keys that would tie an example's mask to its batch.

    Raises:
        TypeError: raw integers, or a generator whose draws under vmap depend on the
            neighbours (rbg).
    """
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(
        keys.dtype, jax.dtypes.prng_key
    )
    if not typed:
        raise TypeError(
            "masks take typed keys: make them with jax.random.key(seed), or wrap old "
            "ones with jax.random.wrap_key_data(...)"
        )
    if str(jax.random.key_impl(keys)) != "threefry2x32":
        raise TypeError(
            f"masks take threefry2x32 keys, got {jax.random.key_impl(keys)}, whose "
            'draws depend on the batch: use jax.random.key(seed, impl="threefry2x32")'
        )
