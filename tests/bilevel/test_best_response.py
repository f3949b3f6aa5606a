"""Best responses as functions that can be differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.bilevel import (
    ConjugateGradient,
    Level,
    Tracked,
    best_response,
    gauss_newton,
    implicit_vjp,
    unroll,
)
from tests.bilevel.quadratic import relative, spd


@pytest.fixture
def ridge(double):
    """Data of few relevant features, halved, and losses of weights and penalty."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(60, 20))
    targets = inputs[:, :2] @ np.array([2.0, -1]) + random.normal(size=60)
    (train, valid) = ((inputs[i::2], targets[i::2]) for i in (0, 1))

    def inner(w, penalty):
        fit = jnp.mean((train[0] @ w - train[1]) ** 2)
        return fit + jnp.sum(jnp.exp(penalty) * w**2)

    def outer(w):
        return jnp.mean((valid[0] @ w - valid[1]) ** 2)

    def solve(start, penalty):
        del start
        damped = train[0].T @ train[0] / 30 + jnp.diag(jnp.exp(penalty))
        return jnp.linalg.solve(damped, train[0].T @ train[1] / 30)

    return inner, outer, solve


def test_a_penalty_for_each_feature_is_fitted_by_validation(ridge):
    inner, outer, solve = ridge
    respond = best_response(Level(inner, ConjugateGradient(20)), solve)
    start = jnp.zeros(20)

    def validation(penalty):
        return outer(respond(start, penalty))

    penalty = jnp.full(20, -3.0)
    exact = jax.jit(jax.grad(lambda p: outer(solve(start, p))))(penalty)
    value_and_grad = jax.jit(jax.value_and_grad(validation))
    first, found = value_and_grad(penalty)
    assert relative(found, exact) < 1e-8
    optimizer = optax.adam(0.1)
    state = optimizer.init(penalty)
    for _ in range(60):
        _, found = value_and_grad(penalty)
        change, state = optimizer.update(found, state)
        penalty = optax.apply_updates(penalty, change)
    last, _ = value_and_grad(penalty)
    assert last < 0.75 * first
    assert penalty[:2].max() < penalty[2:].mean()  # relevant ones are penalised less


def test_the_start_has_no_influence(ridge):
    """Whatever it looks like; the response is the minimum."""
    inner, outer, solve = ridge
    penalty = jnp.zeros(20)
    plain = best_response(Level(inner, ConjugateGradient(20)))
    by_start, by_hyper = jax.grad(
        lambda start, p: outer(plain(start, p)), argnums=(0, 1)
    )(solve(None, penalty), penalty)
    assert not by_start.any() and by_hyper.any()
    other = best_response(
        Level(inner, ConjugateGradient(20)), lambda start, p: solve(start["w"], p)
    )
    start = {"w": jnp.ones(3), "count": jnp.int32(0), "bias": (jnp.ones(()),)}
    by_start, same = jax.grad(
        lambda start, p: outer(other(start, p)), argnums=(0, 1), allow_int=True
    )(start, penalty)
    assert not by_start["w"].any() and not by_start["bias"][0].any()
    assert by_start["count"].dtype == jax.dtypes.float0
    assert relative(same, by_hyper) < 1e-12


def test_at_a_point_that_is_no_minimum_it_is_the_formula(double):
    random = np.random.default_rng(0)
    matrix, cross = spd(random, 5, 0.5, 1), random.normal(size=(3, 5))
    x, t, wanted = random.normal(size=5), random.normal(size=3), random.normal(size=5)

    def loss(x, t):
        return jnp.sum(x @ matrix * x) / 2 + t @ cross @ x + jnp.sum(x**4)

    respond = best_response(Level(loss, ConjugateGradient(20), damping=0.3))
    found = jax.jit(jax.grad(lambda t: respond(x, t) @ wanted))(t)
    curve = matrix + np.diag(12 * x**2 + 0.3)
    assert relative(found, -cross @ np.linalg.solve(curve, wanted)) < 1e-10
    assert (respond(x, t) == x).all()


def test_of_an_optimizer_that_stops_at_the_minimum(ridge):
    """Differentiating through its steps comes to the same, at more cost."""
    inner, outer, _ = ridge
    optimizer, start, penalty = optax.sgd(0.15), jnp.zeros(20), jnp.full(20, -1.0)

    def run(start, penalty):
        return unroll(inner, optimizer, start, penalty, steps=300)

    respond = best_response(Level(inner, ConjugateGradient(20)), run)
    one, other = (
        jax.jit(jax.grad(lambda p, f=f: outer(f(start, p))))(penalty)
        for f in (respond, run)
    )
    assert relative(one, other) < 1e-6


def test_the_hyper_variable_may_be_any_tree(double):
    def loss(x, hyper):
        return (
            jnp.sum((x["a"] - hyper["t"][hyper["order"]]) ** 2)
            + hyper["c"] * x["b"] ** 2
        )

    x, t = {"a": jnp.array([2.0, 0, 1]), "b": jnp.ones(())}, jnp.arange(3.0)
    hyper = {"t": t, "order": jnp.array([2, 0, 1]), "c": 2.0}
    respond = best_response(Level(loss, ConjugateGradient(5)))
    weight = jnp.array([1.0, 10, 100])

    @jax.jit
    def outer(hyper):
        found = respond(x, hyper)
        return found["a"] @ weight + found["b"]

    found = jax.grad(outer, allow_int=True)(hyper)
    assert relative(found["t"], [10.0, 100, 1]) < 1e-12
    assert found["order"].dtype == jax.dtypes.float0
    assert relative([found["c"]], [-0.5]) < 1e-12  # -2 b / 2 c


def test_curvature_in_the_place_of_the_hessian(double):
    """Gauss-Newton's, and one that is made up: both are used as they are."""
    random = np.random.default_rng(0)
    data, target = random.normal(size=(6, 3)), random.normal(size=6)
    x, t, wanted = random.normal(size=3), random.normal(size=6), random.normal(size=3)

    def outputs(x):
        return jnp.tanh(data @ x)

    def loss(x, t):
        return jnp.sum((outputs(x) - target - t) ** 2) / 2

    def safe(x, t):
        return gauss_newton(
            outputs, lambda out: jnp.sum((out - target - t) ** 2) / 2, x
        )

    jacobian = (1 - np.tanh(data @ x) ** 2)[:, None] * data
    level = Level(loss, ConjugateGradient(9), curvature=safe)
    found, solved, _ = implicit_vjp(level, x, t, wanted)
    exact = np.linalg.solve(jacobian.T @ jacobian, wanted)
    assert relative(found, jacobian @ exact) < 1e-10
    assert relative(solved.vector, exact) < 1e-10
    double = Level(loss, ConjugateGradient(9), curvature=lambda x, t: lambda v: 2 * v)
    found, _, _ = implicit_vjp(double, x, t, wanted)
    assert relative(found, jacobian @ wanted / 2) < 1e-12


def test_a_solver_that_keeps_a_state_begins_anew(double):
    def loss(x, t):
        return jnp.sum((x - t) ** 2) / 2

    respond = best_response(Level(loss, Tracked(0.25)))
    for _ in range(2):
        found = jax.grad(lambda t: respond(jnp.ones(2), t).sum())(jnp.ones(2))
        assert found.tolist() == [0.25, 0.25]


def test_many_at_once(double):
    def loss(x, t):
        return jnp.sum(jnp.cosh(x - t)) + jnp.sum(x**2)

    respond = best_response(Level(loss, ConjugateGradient(4)))
    slope = jax.grad(lambda t, x: jnp.sum(respond(x, t) ** 2))
    points, hypers = np.random.default_rng(0).normal(size=(2, 5, 4))
    many = jax.jit(jax.vmap(slope))(hypers, points)
    for place in range(5):
        assert relative(many[place], slope(hypers[place], points[place])) < 1e-9
