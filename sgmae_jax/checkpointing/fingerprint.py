"""Exact fingerprints of arrays, computed where the arrays live.

A fingerprint is 64 bits taken from every bit of an array and its position. It
is made of integer sums modulo 2**32, so it is the same for every sharding and
every order of summation, and no array is gathered or copied to the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their path.

    Args:
        tree: any pytree.

    Returns:
        Leaves by name, such as `params/encoder/norm/scale`, in tree order.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def fingerprints(tree: Any) -> dict[str, UInt32[Array, 2]]:
    """Starts computing the fingerprint of every array of a pytree.

    The work is dispatched to the devices before this returns, hence the caller
    may donate the arrays right after.

    Args:
        tree: pytree of arrays; key data as plain integers, not typed keys.

    Returns:
        Two uint32 words by the name of the leaf, still on the devices.

    Raises:
        TypeError: if a leaf is a typed PRNG key.
    """
    named = named_leaves(tree)
    groups: dict[Any, list[str]] = {}
    for name, leaf in named.items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is a typed key: save jax.random.key_data of it")
        # One compiled program cannot span arrays on different sets of devices.
        devices = leaf.sharding.device_set if isinstance(leaf, jax.Array) else ()
        groups.setdefault(frozenset(devices), []).append(name)
    result: dict[str, UInt32[Array, 2]] = {}
    for names in groups.values():
        result.update(
            zip(names, _all_words(tuple(named[n] for n in names)), strict=True)
        )
    return {name: result[name] for name in named}


def as_text(words: Mapping[str, UInt32[Array, 2]]) -> dict[str, str]:
    """Fetches fingerprints to the host.

    Args:
        words: what `fingerprints` returned.

    Returns:
        Sixteen hexadecimal digits by the name of the leaf.
    """
    return {
        name: "".join(f"{int(word):08x}" for word in np.asarray(pair))
        for name, pair in words.items()
    }


@jax.jit
def _all_words(arrays: Sequence[Array]) -> list[UInt32[Array, 2]]:
    return [_words(array) for array in arrays]


def _words(array: Array) -> UInt32[Array, 2]:
    bits = _as_bits(jnp.asarray(array))
    # Each step below is a bijection of the word for a fixed position, so a change
    # of one element always changes the first sum. Changes of several elements
    # cancel with a chance of 2**-64: the word is mixed with its position before
    # it is added, as plain weighted sums would miss, say, two flipped sign bits.
    first = _mix(bits ^ _mix(_positions(bits.shape)))
    second = _mix(first + jnp.uint32(0x9E3779B9))
    return jnp.stack(
        [jnp.sum(first, dtype=jnp.uint32), jnp.sum(second, dtype=jnp.uint32)]
    )


def _as_bits(array: Array) -> UInt32[Array, ...]:
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    size = array.dtype.itemsize
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(size, jnp.uint32)
    # Elements of eight bytes gain a trailing axis of two words here.
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _positions(shape: tuple[int, ...]) -> UInt32[Array, ...]:
    position = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + index * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return position


def _mix(word: UInt32[Array, ...]) -> UInt32[Array, ...]:
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
