"""The program, with a fingerprint of what every step has hidden among its metrics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax import main
from sgmae_jax.training import step

_PARTS = 4
_make_step = step.make_step
_ODD, _OTHER = np.uint32(2654435761), np.uint32(2246822519)


def hidden_words(hidden, ids):
    """Sums of 20 bits that change with any bit hidden and with the item it is of."""
    flat = hidden.reshape(len(hidden), -1).astype(jnp.uint32)
    words = []
    for part in range(_PARTS):
        place = jnp.arange(flat.shape[1], dtype=jnp.uint32) * 2 + 1
        mixed = (ids.astype(jnp.uint32)[:, None] + 7919 * part + 1) * _ODD
        mixed = (mixed ^ (mixed >> 15)) * (place * _OTHER)
        # Zeros count as well, or batches of other items would look alike.
        mixed = mixed ^ (mixed >> 13)
        words.append(jnp.sum(jnp.where(flat > 0, mixed, mixed * 3)) & 0xFFFFF)
    return {f"mask_{i}": word.astype(jnp.float32) for i, word in enumerate(words)}


def hidden_in(shown):
    """What a picture says is hidden; a scene has three masks, side by side."""
    if "mask" not in shown._fields:
        return shown.hidden
    return jnp.concatenate(jax.tree.leaves(shown.mask), 1)


def with_masks(method, *, accumulate):
    """What `make_step` makes, with the words of the mask in its metrics."""
    taken = _make_step(method, accumulate=accumulate)
    if method.picture is None:
        return taken

    def step_fn(state, batches, phase):
        key = jax.random.wrap_key_data(state.key)
        shown = method.picture(state.params, batches["train"], key, state.step, phase)
        words = hidden_words(hidden_in(shown), batches["train"]["id"])
        state, metrics = taken(state, batches, phase)
        return state, metrics | words

    return step_fn


if __name__ == "__main__":
    step.make_step = with_masks
    main.program()
