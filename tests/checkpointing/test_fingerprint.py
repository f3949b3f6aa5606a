"""Fingerprints see every bit and its place, and no sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sgmae_jax.checkpointing.fingerprint import as_text, fingerprints, named_leaves


def of(array):
    return as_text(fingerprints({"x": array}))["x"]


ARRAYS = {
    "f32": np.linspace(-3, 3, 64, dtype=np.float32).reshape(8, 8),
    "bf16": np.linspace(-3, 3, 64, dtype=np.float32).astype(jnp.bfloat16),
    "i32": np.arange(64, dtype=np.int32).reshape(4, 16),
    "u8": np.arange(64, dtype=np.uint8),
    "bool": np.arange(64) % 3 == 0,
    "scalar": np.float32(2.5).reshape(()),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_any_flipped_bit_changes_it(name):
    array = ARRAYS[name]
    whole = of(jnp.asarray(array))
    raw = array.tobytes()
    bits = [0] if name == "bool" else range(8)
    rng = np.random.default_rng(0)
    for position in rng.choice(len(raw), min(12, len(raw)), replace=False):
        for bit in bits:
            other = bytearray(raw)
            other[position] ^= 1 << bit
            changed = np.frombuffer(bytes(other), array.dtype).reshape(array.shape)
            assert of(jnp.asarray(changed)) != whole


def test_cancelling_changes_are_seen():
    x = np.ones(1 << 17, np.float32)
    flipped = x.copy()
    flipped[[5, 70000]] *= -1  # the top bit twice: zero in a weighted sum
    swapped = x.copy()
    swapped[3] = 2.0
    moved = x.copy()
    moved[3 + (1 << 16)] = 2.0
    prints = [of(jnp.asarray(a)) for a in (x, flipped, swapped, moved)]
    assert len(set(prints)) == 4
    assert of(jnp.zeros((2, 3))) == of(jnp.zeros((2, 3)))
    # An array that moved as a whole is another array.
    assert of(jnp.arange(6.0)) != of(jnp.arange(6.0)[::-1])


@pytest.mark.parametrize("spec", [("a",), (None, "a"), ("a", "b"), ()])
def test_sharding_does_not_matter(spec):
    mesh = jax.make_mesh(
        (4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    array = jax.random.normal(jax.random.key(0), (16, 8))
    spread = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    assert of(spread) == of(array)


def test_arrays_on_different_devices_in_one_tree():
    first, second = jax.devices()[:2]
    x = jnp.arange(5.0)
    tree = {"a": jax.device_put(x, first), "b": jax.device_put(x, second)}
    prints = as_text(fingerprints(tree))
    assert prints["a"] == prints["b"] == of(x)
    assert list(prints) == list(named_leaves(tree))


def test_typed_keys_are_named():
    with pytest.raises(TypeError, match="a/rng is a typed key"):
        fingerprints({"a": {"rng": jax.random.key(0)}})
