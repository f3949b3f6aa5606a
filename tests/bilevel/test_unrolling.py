"""Differentiation through steps against implicit differentiation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.bilevel import (
    Level,
    Neumann,
    best_response,
    implicit_vjp,
    unroll,
)
from tests.bilevel.quadratic import Quadratic, relative


@pytest.fixture
def problem(double):
    return Quadratic()


def through_steps(problem, steps, x, y):
    """The hypergradient in reverse mode through gradient descent on both levels."""
    descend = functools.partial(unroll, optimizer=optax.sgd(1.0), steps=steps)

    @jax.jit
    def of(t):
        lower = descend(problem.lower, inner=x, hyper=t)
        return problem.outer(lower, descend(problem.middle, inner=y, hyper=lower), t)

    return jax.grad(of)(problem.t)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_from_the_minimum_steps_are_a_neumann_series(problem, steps):
    x = problem.x_of(problem.t)
    y = problem.y_of(x)
    if steps == 1:  # no product at all: the identity, scaled by the rate
        r = problem.P @ x + problem.Q @ y - problem.z
        wanted = problem.P.T @ r + problem.D.T @ (problem.Q.T @ r)
        expected = problem.B.T @ wanted + 0.1 * problem.t
    else:
        solver = Neumann(steps - 1, 1.0)
        lower = best_response(Level(problem.lower, solver))
        middle = best_response(Level(problem.middle, solver))

        @jax.jit
        def of(t):
            near = lower(x, t)
            return problem.outer(near, middle(y, near), t)

        expected = jax.grad(of)(problem.t)
    assert relative(through_steps(problem, steps, x, y), expected) < 1e-12


def test_from_anywhere_many_steps_reach_the_closed_form(problem):
    start = jnp.zeros(30), jnp.zeros(12)
    expected = problem.gradient(problem.t)
    assert relative(through_steps(problem, 40, *start), expected) > 0.01
    assert relative(through_steps(problem, 600, *start), expected) < 1e-9


def test_the_state_of_the_optimizer_goes_on(problem):
    optimizer = optax.adam(0.01)
    t = jnp.asarray(problem.t)
    run = functools.partial(unroll, problem.lower, optimizer, hyper=t)
    x, state = jnp.zeros(30), optimizer.init(jnp.zeros(30))
    for _ in range(3):
        change, state = optimizer.update(jax.grad(problem.lower)(x, t), state, x)
        x = optax.apply_updates(x, change)
    assert relative(run(jnp.zeros(30), steps=3), x) < 1e-12
    on = run(x, steps=2, state=state)
    assert relative(on, run(jnp.zeros(30), steps=5)) < 1e-12
    assert relative(on, run(x, steps=2)) > 1e-4
    assert relative(run(x, steps=0), x) == 0

    # It is differentiable by the start, by the hyper-variable and by the state.
    def total(x, t, state):
        return jnp.sum(unroll(problem.lower, optimizer, x, t, steps=2, state=state))

    by = jax.jit(jax.grad(total, argnums=(0, 1, 2), allow_int=True))(x, t, state)
    along = np.random.default_rng(0).normal(size=8)
    ahead, behind = (total(x, t + s * along, state) for s in (1e-5, -1e-5))
    assert abs((ahead - behind) / 2e-5 - by[1] @ along) < 1e-7
    assert jnp.linalg.norm(by[0]) > 1
    assert jnp.linalg.norm(optax.tree.get(by[2], "mu")) > 0


def test_a_short_series_far_from_the_minimum_is_the_pull_of_the_next_steps(problem):
    """The Hessian is the same everywhere: both answer the same question there."""
    x, t = jnp.ones(30), jnp.asarray(problem.t)
    wanted = jnp.asarray(np.random.default_rng(1).normal(size=30))
    _, pull = jax.vjp(lambda t: unroll(problem.lower, optax.sgd(0.7), x, t, steps=4), t)
    by_hyper, solved, _ = implicit_vjp(
        Level(problem.lower, Neumann(3, 0.7)), x, t, wanted
    )
    assert relative(by_hyper, pull(wanted)[0]) < 1e-12
    assert solved.iterations == 3 and 0 < solved.residual < 1
