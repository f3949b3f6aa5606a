"""A tiny run, step by step, of the parts that the training loop has."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax

from sgmae_jax import domains, methods
from sgmae_jax.config import load_config
from sgmae_jax.data import Loader, steps_in
from sgmae_jax.methods.base import Method, Run, Stream
from sgmae_jax.training.inputs import make_loader
from sgmae_jax.training.mesh import make_mesh, put_batch, state_shardings
from sgmae_jax.training.state import TrainState, init_state
from sgmae_jax.training.step import jitted_step
from tests.tiny import TINY


class ByHand(NamedTuple):
    """What a run is made of; `step` gives (state, metrics) of one of its steps."""

    method: Method
    loader: Loader
    state: TrainState
    step: Any


def by_hand(**changes: object) -> ByHand:
    """The parts of a tiny run, with fields changed as `tests.tiny.arguments` does."""
    fields = TINY | {name.replace("__", "."): str(v) for name, v in changes.items()}
    config = load_config("quickstart", list(fields.items()))
    mesh, domain = make_mesh(config.mesh), domains.of_config(config)
    source = domain.open_source(config, config.data.split, in_memory=False)
    run = Run(
        steps_in(source, config.data.batch_size, "images"),
        config.steps,
        examples=len(source),
        frozen=methods.frozen_networks(config),
        **domain.facts(config, source),
    )
    method = methods.load(config.method.name).build(config, run)
    loader = make_loader(config, run, source, Stream())
    key = jax.random.key(config.seed)
    begin = functools.partial(init_state, method)
    shardings = state_shardings(jax.eval_shape(begin, key), mesh)
    step_fn = jitted_step(method, shardings, accumulate=config.optim.accumulate)

    def step(state: TrainState, change=lambda batch: batch):
        number = int(state.step)
        batch = put_batch(change(loader.batch_at(number)), mesh)
        return step_fn(state, {"train": batch}, method.phase(number, {}))

    return ByHand(method, loader, jax.jit(begin, out_shardings=shardings)(key), step)
