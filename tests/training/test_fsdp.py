"""A divided state gathers weights, and changes no number."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType

from benchmarks.hlo import collectives
from sgmae_jax.training.mesh import put_batch, state_shardings
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import jitted_step
from tests.methods.cases import KEY, batch_of, build, tiny_config


def _step(shape):
    mesh = jax.make_mesh(shape, ("data", "fsdp"), (AxisType.Auto,) * 2)
    method = build(tiny_config())
    shapes = jax.eval_shape(functools.partial(init_state, method), KEY)
    shardings = state_shardings(shapes, mesh)
    make = jax.jit(functools.partial(init_state, method), out_shardings=shardings)
    return jitted_step(method, shardings), make(KEY), mesh, method


def test_a_divided_state_sends_weights_and_changes_no_number():
    ends, sent = {}, {}
    for shape in ((8, 1), (1, 8), (2, 4)):
        step, state, mesh, method = _step(shape)
        phase = method.phase(0, {})
        for n in range(3):
            batch = {"train": put_batch(batch_of(first=16 * n), mesh)}
            if n == 0:
                text = step.lower(state, batch, phase).compile().as_text()
                sent[shape] = {one.kind for one in collectives(text)}
            state, metrics = step(state, batch, phase)
        ends[shape] = jax.device_get((state.params, metrics["loss"]))
    for end in ends.values():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
            end,
            ends[8, 1],
        )
    assert sent[8, 1] == {"all-reduce"}
    assert sent[1, 8] <= {"all-reduce", "all-gather", "reduce-scatter"}
