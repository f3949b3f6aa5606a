"""Hypergradients through two quadratic levels against their closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.bilevel import (
    ConjugateGradient,
    Identity,
    Level,
    Neumann,
    Nystrom,
    Tracked,
    best_response,
    hypergradient,
    mixed_difference,
)
from tests.bilevel.quadratic import Quadratic, cosine, relative


@pytest.fixture
def problem(double, quick_compilation):
    return Quadratic()


def solved(problem, solver, t=None, **options):
    """The hypergradient at the exact responses, the same solver at both levels."""
    t = problem.t if t is None else t
    damping = options.pop("damping", 0.0)
    x = problem.x_of(t)

    @jax.jit
    def run(x, y, t):
        return hypergradient(
            problem.outer,
            Level(problem.middle, solver, damping),
            Level(problem.lower, solver, damping),
            x,
            y,
            t,
            **options,
        )

    return run(x, problem.y_of(x), t)


def error(problem, solver, **options):
    found = solved(problem, solver, **options).value
    return relative(found, problem.gradient(problem.t))


def test_the_closed_form_is_the_slope_of_the_outer_loss(problem):
    random = np.random.default_rng(1)
    for _ in range(3):
        along = random.normal(size=8)
        ahead = problem.value(problem.t + 1e-5 * along)
        behind = problem.value(problem.t - 1e-5 * along)
        slope = problem.gradient(problem.t) @ along
        assert abs((ahead - behind) / 2e-5 - slope) < 1e-8 * abs(slope)


def test_conjugate_gradients_reach_the_closed_form(problem):
    found = solved(problem, ConjugateGradient(30))
    assert relative(found.value, problem.gradient(problem.t)) < 1e-8
    assert found.lower.residual < 1e-7 and found.middle.residual < 1e-7
    assert not found.lower.negative_curvature and not found.middle.negative_curvature


@pytest.mark.parametrize(
    ("iterations", "low", "high"),
    [(5, 0.02, 0.4), (10, 1e-3, 0.05), (20, 1e-7, 1e-4), (30, 0, 1e-8)],
)
def test_conjugate_gradients_converge_as_fast_as_they_should(
    problem, iterations, low, high
):
    assert low <= error(problem, ConjugateGradient(iterations)) < high


@pytest.mark.parametrize(
    ("terms", "low", "high"), [(20, 0.05, 0.6), (100, 5e-4, 0.02), (500, 0, 4e-11)]
)
def test_neumann_series_converge_as_fast_as_they_should(problem, terms, low, high):
    assert low <= error(problem, Neumann(terms, 1.0)) < high


def test_the_identity_points_roughly_where_it_should(problem):
    found = solved(problem, Identity())
    assert 0.3 < cosine(found.value, problem.gradient(problem.t)) < 0.95
    assert error(problem, Identity()) > 0.5
    assert jnp.isnan(found.lower.residual) and not found.lower.iterations
    # A large inverse Hessian leaves its direction: at twice the scale the implicit
    # part is four times as large, as both levels have it.
    direct = solved(problem, Identity(), weights=(1, 0)).value - 0.1 * problem.t
    through = solved(problem, Identity(), weights=(0, 1)).value - 0.1 * problem.t
    twice = solved(problem, Identity(2.0)).value - 0.1 * problem.t
    assert relative(twice, 2 * direct + 4 * through) < 1e-12


def test_nystrom_of_full_rank_is_the_inverse(problem):
    assert error(problem, Nystrom(30), damping=1e-8) < 1e-5
    assert error(problem, Nystrom(30), damping=1e-2) > 1e-3
    low_rank = solved(problem, Nystrom(5), damping=1e-3)
    assert low_rank.lower.residual > 0.1


def test_damping_costs_length_before_direction(problem):
    expected = problem.gradient(problem.t)
    found = [
        solved(problem, ConjugateGradient(60), damping=d).value
        for d in (1e-3, 1e-2, 1e-1)
    ]
    errors = [relative(one, expected) for one in found]
    assert errors[0] < 0.05 < errors[1] < 0.4 < errors[2] < 1
    cosines = [cosine(one, expected) for one in found]
    assert cosines[0] > 0.9999 and cosines[1] > 0.998 and cosines[2] > 0.95


def test_a_tracked_solution_converges_over_many_solves(problem):
    solver = Tracked(1.0)
    x = problem.x_of(problem.t)
    y = problem.y_of(x)

    @jax.jit
    def once(states):
        found = hypergradient(
            problem.outer,
            Level(problem.middle, solver),
            Level(problem.lower, solver),
            x,
            y,
            problem.t,
            states=states,
        )
        return found.states, (found.value, found.lower.residual)

    states = solver.init(y), solver.init(x)
    _, (values, residuals) = jax.lax.scan(lambda s, _: once(s), states, length=800)
    expected = problem.gradient(problem.t)
    errors = [relative(values[i], expected) for i in (0, 50, 200, 799)]
    assert errors[0] > 0.5 and errors[1] < 0.5 and errors[2] < 1e-2
    assert errors[3] < 1e-10
    assert residuals[0] == 1 and residuals[-1] < 1e-10


def test_two_best_responses_make_the_explicit_hypergradient(problem):
    solver = ConjugateGradient(12)
    lower = best_response(
        Level(problem.lower, solver),
        lambda start, t: jnp.linalg.solve(problem.A, problem.B @ t + problem.b),
    )
    middle = best_response(
        Level(problem.middle, solver),
        lambda start, x: jnp.linalg.solve(problem.C, problem.D @ x + problem.d),
    )

    @jax.jit
    def composed(t):
        x = lower(jnp.zeros(30), t)
        return problem.outer(x, middle(jnp.zeros(12), x), t)

    found = jax.grad(composed)(problem.t)
    assert relative(found, solved(problem, solver).value) < 1e-12
    assert relative(found, problem.gradient(problem.t)) > 1e-6


def test_features_in_the_place_of_variables_change_nothing(problem):
    solver = ConjugateGradient(12)
    plain = solved(problem, solver)
    x = problem.x_of(problem.t)
    seen = jax.jit(hypergradient, static_argnums=(0, 1, 2), static_argnames="views")(
        lambda h, y, t: (
            jnp.sum((h["px"] + problem.Q @ y - problem.z) ** 2) / 2 + 0.1 * t @ t / 2
        ),
        Level(lambda y, h: y @ problem.C @ y / 2 - y @ (h[0] + problem.d), solver),
        Level(problem.lower, solver),
        x,
        problem.y_of(x),
        problem.t,
        views=(lambda x: (problem.D @ x,), lambda x: {"px": problem.P @ x}),
    )
    for one, other in zip(seen[:3], plain[:3], strict=True):
        assert relative(one, other) < 1e-12


def test_the_two_paths_add_up(problem):
    solver = ConjugateGradient(40)
    direct, through, both = (
        solved(problem, solver, weights=w).value for w in ((1, 0), (0, 1), (1, 1))
    )
    explicit = 0.1 * problem.t
    assert relative(direct + through - explicit, both) < 1e-7
    assert relative(direct, problem.gradient(problem.t, (1, 0))) < 1e-7
    assert relative(through, problem.gradient(problem.t, (0, 1))) < 1e-7
    assert relative(direct, both) > 0.1 and relative(through, both) > 0.1


def test_differences_in_the_place_of_mixed_products_agree(problem):
    """The losses are of second degree: a central difference is exact."""
    t, x = problem.t, problem.x_of(problem.t)
    exact = solved(problem, Identity())
    by_difference = jax.jit(hypergradient, static_argnums=(0, 1, 2))(
        problem.outer,
        Level(problem.middle, Identity(), product=mixed_difference),
        Level(problem.lower, Identity(), product=mixed_difference),
        x,
        problem.y_of(x),
        t,
    )
    assert relative(by_difference.value, exact.value) < 1e-9


def test_the_outer_loss_may_leave_a_path_out(problem):
    """Zero is a fine right-hand side."""
    found = jax.jit(hypergradient, static_argnums=(0, 1, 2))(
        lambda x, y, t: jnp.sum((problem.P @ x) ** 2) / 2,
        Level(problem.middle, ConjugateGradient(30)),
        Level(problem.lower, ConjugateGradient(30)),
        problem.x_of(problem.t),
        jnp.zeros(12),
        problem.t,
    )
    x = problem.x_of(problem.t)
    wanted = np.linalg.solve(problem.A, problem.P.T @ problem.P @ x)
    assert relative(found.value, problem.B.T @ wanted) < 1e-8
    assert found.middle.iterations == 0 and not found.middle.negative_curvature


def test_compiled_or_not_it_is_the_same(problem):
    solver = ConjugateGradient(5)
    compiled = solved(problem, solver)
    with jax.disable_jit():
        one_by_one = solved(problem, solver)
    assert relative(one_by_one.value, compiled.value) < 1e-12
    assert one_by_one.lower.iterations == compiled.lower.iterations == 5


def test_everything_is_in_the_report(problem):
    found = solved(problem, ConjugateGradient(30))
    x = problem.x_of(problem.t)
    r = problem.P @ x + problem.Q @ problem.y_of(x) - problem.z
    by_y = problem.D.T @ np.linalg.solve(problem.C, problem.Q.T @ r)
    assert relative(found.direct, problem.P.T @ r) < 1e-12
    assert relative(found.through, by_y) < 1e-8
    middle = np.linalg.solve(problem.C, problem.Q.T @ r)
    assert relative(found.middle.vector, middle) < 1e-8
    assert found.states == ((), ())


def test_single_precision_is_enough_for_four_digits():
    problem = Quadratic()
    expected = problem.gradient(problem.t)
    single = dataclasses.replace(problem)
    for name, value in vars(problem).items():
        if isinstance(value, np.ndarray):
            setattr(single, name, value.astype(np.float32))
    found = solved(single, ConjugateGradient(40))
    assert found.value.dtype == jnp.float32
    assert relative(found.value, expected) < 1e-3
