"""The training state: everything a step reads and writes, as one pytree."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, UInt32

from sgmae_jax.methods.base import Method, Params, Stage
from sgmae_jax.training.mesh import put_same


class TrainState(NamedTuple):
    """Parameters, optimizer states, and where training stands.

    Attributes:
        step: steps done.
        params: named sub-trees; teachers and frozen networks are among them.
        opt: one optimizer state an update.
        key: data of the root key (a plain array, so that any tool can restore it).
        skipped: non-finite steps so far.
    """

    step: Int[Array, ""]
    params: Params
    opt: tuple[Any, ...]
    key: UInt32[Array, "..."]
    skipped: Int[Array, ""]


def init_state(method: Method, key: Key[Array, ""]) -> TrainState:
    """The state before step 0; jit it, op by op it takes seconds."""
    params = method.init(jax.random.fold_in(key, 0))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt=_init_optimizers(method, params),
        key=jax.random.key_data(key),
        skipped=jnp.zeros((), jnp.int32),
    )


def with_given(method: Method, state: TrainState, shardings: TrainState) -> TrainState:
    """The state before step 0, with what the method takes from files in its place."""
    given = method.given()
    placed = put_same(given, {name: shardings.params[name] for name in given})
    return state._replace(params={**state.params, **placed})


def enter_stage(method: Method, stage: Stage, state: TrainState) -> TrainState:
    """Crosses a stage boundary: new params, new optimizer states."""
    key = jax.random.wrap_key_data(state.key)
    params = stage.enter(state.params, jax.random.fold_in(key, stage.begin))
    opt = _init_optimizers(method, params)
    if stage.keep_moments:

        def is_adam(node: Any) -> bool:
            return isinstance(node, optax.ScaleByAdamState)

        opt = jax.tree.map(
            lambda new, old: old if is_adam(new) else new,
            opt,
            state.opt,
            is_leaf=is_adam,
        )
    return state._replace(params=params, opt=opt)


def _init_optimizers(method: Method, params: Params) -> tuple[Any, ...]:
    return tuple(
        update.optimizer.init({name: params[name] for name in update.owns})
        for update in method.updates
    )
