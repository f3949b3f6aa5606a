"""Masks of traffic scenes: an agent shows its past or its future, lanes are thinned."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from sgmae_jax.masking.keys import check_keys
from sgmae_jax.masking.select import select

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Key


class SceneMask(NamedTuple):
    """What the encoder sees of a scene; False on padding, too.

    Attributes:
        history: of which agents the past.
        future: of which agents the future; never both.
        lanes: which lanes.
    """

    history: Bool[Array, "B A"]
    future: Bool[Array, "B A"]
    lanes: Bool[Array, "B M"]


def scene_mask(
    keys: Key[Array, " B"],
    agents: Bool[Array, "B A"],
    futures: Bool[Array, "B A"],
    lanes: Bool[Array, "B M"],
    *,
    agent_ratio: float,
    lane_ratio: float,
) -> SceneMask:
    """Complementary random masks of agents, and random masks of lanes.

    Of the n agents that have a future, floor(n (1 - agent_ratio)) show it and nothing
    of their past; the others, and those without a future, show their past. Of m lanes,
    ceil(m (1 - lane_ratio)) are shown. Row i follows from keys[i] and scene i alone:
    not from the batch, nor from how far it is padded.

    Args:
        keys: one a scene, threefry2x32.
        agents: who has a past.
        futures: who has a future; all of them among `agents`.
        lanes: which lanes there are.
        agent_ratio: share of the futures that is hidden, in [0, 1].
        lane_ratio: share of the lanes that is hidden, in [0, 1].

    Raises:
        ValueError: a ratio out of range.
        TypeError: keys of another kind.

    Reference: Cheng et al., Forecast-MAE (2023); jchengai/forecast-mae model_mae.py.
    """
    check_keys(keys)
    for name, ratio in (("agent_ratio", agent_ratio), ("lane_ratio", lane_ratio)):
        if not 0 <= ratio <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {ratio}")
    halves = jax.vmap(jax.random.split)(keys)
    shown = jnp.floor(futures.sum(-1) * (1 - agent_ratio))
    future = _draw(halves[:, 0], futures, shown)
    kept = jnp.ceil(lanes.sum(-1) * (1 - lane_ratio))
    return SceneMask(agents & ~future, future, _draw(halves[:, 1], lanes, kept))


def _draw(keys: Array, there: Array, count: Array) -> Array:
    """So many of those that are there, at random."""
    size = there.shape[-1]
    # Draws one by one: those of a scene must not depend on how many there are.
    scores = jax.vmap(
        lambda key: jax.vmap(lambda n: jax.random.uniform(jax.random.fold_in(key, n)))(
            jnp.arange(size)
        )
    )(keys)
    scores = jnp.where(there, scores, jnp.inf)
    mask = select(scores, size, count=count.astype(jnp.int32))
    return (mask.hidden == 0) & there
