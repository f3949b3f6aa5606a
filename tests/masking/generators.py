"""The generators under test, and what hypothesis draws for them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from sgmae_jax.masking import (
    Context,
    attention_mask,
    block_mask,
    example_keys,
    grid_mask,
    guided_mask,
    random_mask,
)


@partial(jax.jit, static_argnums=1)
def seen(keys, tokens):
    """Features [B, N, 64] of two patterns an image, and attention [B, 2, 1+N, 1+N].

    Features are signs: their cosines, and sums of those, are exact in float32 in
    whatever order they are added, so that equal relevance is equal to the last bit.
    """

    def one(key):
        noise = jax.random.uniform(key, (2 + tokens, 65))
        patterns = jnp.sign(noise[:2, 1:] - 0.5)
        of_object = noise[2:, :1] < 0.3
        signs = jnp.sign(noise[2:, 1:] - 0.15)
        features = jnp.where(of_object, patterns[0], patterns[1]) * signs
        looked_at = jax.nn.softmax(5 * noise[1:, 1])
        return features, jnp.broadcast_to(looked_at, (2, 1 + tokens, 1 + tokens))

    return jax.vmap(one)(keys)


def guided(keys, context, *, ratio):
    """The self-guided mask of a context whose features follow from the keys."""
    features, attention = seen(keys, context.num_tokens)
    context = replace(context, features=features, attention=attention)
    return guided_mask(keys, context, ratio=ratio)


def by_attention(keys, context, *, ratio):
    """SMA's mask of a context whose attention follows from the keys."""
    _, attention = seen(keys, context.num_tokens)
    context = replace(context, attention=attention)
    return attention_mask(keys, context, ratio=ratio, heads="random_mix")


GENERATORS = {
    "random": random_mask,
    "block": block_mask,
    "grid": grid_mask,
    "grid offset": partial(grid_mask, random_offset=True),
    "grid 3x3": partial(grid_mask, cell=(3, 3), random_offset=True),
    "guided": guided,
    "attention": by_attention,
}
# Few grids and batch sizes: each new shape compiles its own small programs.
GRIDS = [(1, 1), (1, 7), (14, 14), (7, 7), (12, 3)]
grids = st.sampled_from(GRIDS)
ratios = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.75, 0.9, 1.0]), st.floats(0.01, 0.99)
)
seeds = st.integers(0, 2**31 - 1)
properties = settings(deadline=None, max_examples=20)


def keys_of(seed: int, ids) -> jax.Array:
    ids = jnp.asarray(ids)
    return example_keys(jax.random.key(seed), jnp.zeros_like(ids), ids, "mask")


def make(name: str, keys, grid, ratio):
    """A mask as NumPy arrays."""
    mask = GENERATORS[name](keys, Context(grid=grid), ratio=ratio)
    return jax.tree.map(np.asarray, mask)


def assert_valid(mask, kept: int) -> None:
    """All that the contract says of a mask without padding."""
    batch, tokens = mask.ids_restore.shape
    assert mask.keep_valid is None
    assert mask.ids_keep.shape == (batch, kept)
    assert mask.ids_keep.dtype == mask.ids_restore.dtype == np.int32
    assert mask.hidden.dtype == mask.loss_weight.dtype == mask.gate.dtype == np.float32
    np.testing.assert_array_equal(
        np.sort(mask.ids_restore, axis=1), np.tile(np.arange(tokens), (batch, 1))
    )
    np.testing.assert_array_equal(mask.hidden.sum(1), tokens - kept)
    np.testing.assert_array_equal(mask.hidden, mask.ids_restore >= kept)
    np.testing.assert_array_equal(
        np.take_along_axis(mask.ids_restore, mask.ids_keep, 1),
        np.tile(np.arange(kept), (batch, 1)),
    )
    np.testing.assert_array_equal(mask.loss_weight, mask.hidden)
    np.testing.assert_array_equal(mask.gate, np.ones_like(mask.hidden))


def grids_of(hidden, grid) -> np.ndarray:
    """hidden [B, N] as bool [B, h, w]."""
    return np.asarray(hidden).astype(bool).reshape(-1, *grid)


def edges(hidden: np.ndarray) -> np.ndarray:
    """Borders between hidden and visible tokens of each example, hidden [B, h, w]."""
    down = hidden[:, 1:] != hidden[:, :-1]
    across = hidden[:, :, 1:] != hidden[:, :, :-1]
    return down.sum((1, 2)) + across.sum((1, 2))
