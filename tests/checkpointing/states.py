"""A small state of every kind of array, and ways to harm what is saved of it."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax


def make_state(seed=0):
    """A training state in small: parameters, AdamW, counters, key data."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "encoder": {
            "kernel": jax.random.normal(keys[0], (16, 24)),
            "bias": jax.random.normal(keys[1], (24,), jnp.bfloat16),
        },
        "decoder": {"kernel": jax.random.normal(keys[2], (24, 8))},
    }
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3))
    )
    gradients = jax.tree.map(jnp.ones_like, params)
    _, opt = optimizer.update(gradients, optimizer.init(params), params)
    return {
        "params": params,
        "opt": opt,
        "step": jnp.int32(seed),
        "key": jax.random.key_data(jax.random.key(seed)),
        "skipped": jnp.int32(0),
    }


def target_of(state, sharding=None):
    """Shapes and types of a state, to restore into."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
    )


def assert_equal(state, expected):
    """Same structure, types and bits."""
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for got, want in zip(
        jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
        assert got.dtype == want.dtype and got.shape == want.shape
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


def files_of(folder):
    """All regular files of a step directory, by relative name."""
    folder = pathlib.Path(folder)
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def names(directory):
    """What lies directly in a directory."""
    return sorted(path.name for path in pathlib.Path(directory).iterdir())
