"""What each solver returns, on good, bad, tiny and odd linear systems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from sgmae_jax.bilevel import (
    ConjugateGradient,
    Identity,
    Neumann,
    Nystrom,
    OneStep,
    Tracked,
)
from tests.bilevel.quadratic import relative, spd

pytestmark = pytest.mark.usefixtures("double", "quick_compilation")


def dense(matrix):
    return lambda v: jnp.asarray(matrix, v.dtype) @ v


def symmetric(random, eigenvalues):
    basis, _ = np.linalg.qr(random.normal(size=(len(eigenvalues),) * 2))
    return basis * eigenvalues @ basis.T


def solve(solver, matrix, wanted, **options):
    """Compiled, the solver static."""

    @jax.jit
    def run(matrix, wanted):
        return solver.solve(dense(matrix), wanted, solver.init(wanted), **options)[0]

    return run(matrix, wanted)


def refuse(vector):
    raise AssertionError("an operator was called that must not be")


# Good for eigenvalues from 0.1 to 1 and a damping of 0.1.
ITERATIVE = [ConjugateGradient(12), Neumann(300, 1.0), Tracked(1.0), Nystrom(12)]
FREE = [Identity(0.5), OneStep(functools.partial(optax.tree.scale, -0.5))]


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def indefinite(random):
    """50 eigenvalues, 10 of them negative, and a right-hand side."""
    eigenvalues = np.concatenate([-np.linspace(0.05, 0.5, 10), np.linspace(0.1, 2, 40)])
    return symmetric(random, eigenvalues), random.normal(size=50)


def plain_conjugate_gradients(matrix, wanted, iterations):
    """Without a guard, in NumPy."""
    found, left, direction = np.zeros_like(wanted), wanted, wanted
    for _ in range(iterations):
        product = matrix @ direction
        length = left @ left / (direction @ product)
        found = found + length * direction
        before, left = left, left - length * product
        direction = left + (left @ left) / (before @ before) * direction
    return found


def test_negative_curvature_ends_conjugate_gradients_on_the_right_side(indefinite):
    matrix, wanted = indefinite
    for iterations in (5, 20, 50):
        found = solve(ConjugateGradient(iterations), matrix, wanted)
        assert found.vector @ wanted > 0
        assert np.isfinite(found.vector).all()
        assert np.linalg.norm(found.vector) < 50 * np.linalg.norm(wanted)
    assert found.negative_curvature == 1 and 1 < found.iterations < 50
    # Up to there it is what conjugate gradients do.
    until = plain_conjugate_gradients(matrix, wanted, int(found.iterations) - 1)
    assert relative(found.vector, until) < 1e-10
    true = np.linalg.norm(matrix @ until - wanted) / np.linalg.norm(wanted)
    assert abs(found.residual - true) < 1e-5
    # Without the guard the answer has the wrong sign, sooner or later.
    assert any(
        plain_conjugate_gradients(matrix, wanted, i) @ wanted < 0 for i in range(1, 51)
    )


def test_damping_above_the_most_negative_eigenvalue_mends_it(indefinite):
    matrix, wanted = indefinite
    found = solve(ConjugateGradient(60), matrix, wanted, damping=0.6)
    exact = np.linalg.solve(matrix + 0.6 * np.eye(50), wanted)
    assert relative(found.vector, exact) < 1e-9
    assert not found.negative_curvature and found.residual < 1e-9


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_without_curvature_in_the_first_direction_it_is_the_identity(factor, random):
    wanted, scale = random.normal(size=7), random.uniform(1, 2, size=7)
    found = solve(
        ConjugateGradient(5), factor * np.eye(7), wanted, precondition=jnp.array(scale)
    )
    assert relative(found.vector, scale * wanted) < 1e-12
    assert found.negative_curvature == 1 and found.iterations == 1
    left = np.linalg.norm(factor * scale * wanted - wanted) / np.linalg.norm(wanted)
    assert abs(found.residual - left) < 1e-5


def test_an_operator_that_returns_nan_says_so_and_returns_no_nan(random):
    found = solve(ConjugateGradient(5), np.full((4, 4), np.nan), random.normal(size=4))
    assert np.isfinite(found.vector).all() and found.negative_curvature == 1
    assert not found.residual < 1


def test_more_iterations_than_numbers_do_no_harm(random):
    matrix, wanted = spd(random, 8, 0.1, 1), random.normal(size=8)
    for precondition in (1.0, 1e-3):
        found = solve(ConjugateGradient(500), matrix, wanted, precondition=precondition)
        assert relative(found.vector, np.linalg.solve(matrix, wanted)) < 1e-12
        assert not found.negative_curvature and np.isfinite(found.residual)


def test_damping_by_tree(random):
    matrix, wanted = spd(random, 6, 0.1, 1), random.normal(size=6)
    damping = random.uniform(0.1, 1, size=6)
    exact = np.linalg.solve(matrix + np.diag(damping), wanted)
    for solver in (ConjugateGradient(6), Neumann(200, 1.0)):
        found = solve(solver, matrix, wanted, damping=jnp.array(damping))
        assert relative(found.vector, exact) < 1e-9

    def product(tree):
        both = matrix @ jnp.concatenate([tree["a"], tree["b"][0]])
        return {"a": both[:2], "b": (both[2:],)}

    tree = {"a": jnp.array(damping[:2]), "b": (jnp.array(damping[2:]),)}
    whole = {"a": jnp.array(wanted[:2]), "b": (jnp.array(wanted[2:]),)}
    solver = ConjugateGradient(6)
    found = jax.jit(lambda w: solver.solve(product, w, damping=tree)[0])(whole)
    expected = {"a": exact[:2], "b": (exact[2:],)}
    assert relative(found.vector, expected) < 1e-9


def test_preconditioning_by_the_diagonal_saves_products(random):
    scale = 10 ** random.uniform(-2, 2, size=40)
    matrix = scale[:, None] * spd(random, 40, 0.5, 1) * scale
    wanted = random.normal(size=40)
    solver = ConjugateGradient(2000, tolerance=1e-8)
    plain = solve(solver, matrix, wanted)
    better = solve(
        solver, matrix, wanted, precondition=jnp.array(1 / matrix.diagonal())
    )
    assert better.residual < 1e-8 and better.iterations < 40
    assert better.iterations < plain.iterations / 5
    assert relative(better.vector, np.linalg.solve(matrix, wanted)) < 1e-4


def test_the_tolerance_ends_it(random):
    matrix, wanted = spd(random, 30, 0.05, 1), random.normal(size=30)
    loose = solve(ConjugateGradient(30, tolerance=1e-2), matrix, wanted)
    exact = solve(ConjugateGradient(30), matrix, wanted)
    assert loose.residual <= 1e-2 and loose.iterations < 25
    assert exact.residual < 1e-8 and exact.iterations == 30
    one_less = solve(ConjugateGradient(int(loose.iterations) - 1), matrix, wanted)
    assert one_less.residual > 1e-2 and one_less.iterations == loose.iterations - 1
    assert solve(ConjugateGradient(9, tolerance=2.0), matrix, wanted).iterations == 0


def test_products_are_counted(random):
    matrix, wanted = spd(random, 5, 0.1, 1), random.normal(size=5)
    calls = []

    def counting(vector):
        jax.debug.callback(lambda _: calls.append(1), vector[0])
        return matrix @ vector

    for solver in (ConjugateGradient(3), Neumann(4, 1.0), Tracked(0.1), Nystrom(3)):
        calls.clear()
        state = solver.init(wanted)
        found, _ = jax.jit(
            lambda w, s, solver=solver: solver.solve(counting, w, s, damping=0.1)
        )(wanted, state)
        jax.effects_barrier()
        assert found.iterations == len(calls), solver


def name_of(solver):
    """The same in every process, as workers compare names."""
    return type(solver).__name__


@pytest.mark.parametrize("solver", [*ITERATIVE, *FREE], ids=name_of)
def test_a_tiny_right_hand_side_only_scales_the_answer(solver, random):
    matrix = jnp.asarray(spd(random, 12, 0.1, 1), jnp.float32)
    wanted = jnp.asarray(random.normal(size=12), jnp.float32)
    damping = 0.0 if isinstance(solver, ConjugateGradient) else 0.1
    run = functools.partial(solve, solver, matrix, damping=damping)
    plain, tiny = run(wanted), run(wanted * jnp.float32(1e-30))
    assert tiny.vector.dtype == jnp.float32
    assert np.isfinite(tiny.vector).all()
    assert relative(np.float64(tiny.vector) * 1e30, plain.vector) < 1e-3
    assert np.isfinite(tiny.residual) == solver.products
    assert tiny.negative_curvature == 0


@pytest.mark.parametrize("solver", ITERATIVE, ids=name_of)
def test_zero_has_the_answer_zero(solver):
    found = solve(solver, np.eye(12), np.zeros(12), damping=0.1)
    assert not found.vector.any() and found.residual == 0
    assert not found.negative_curvature


def test_a_neumann_series_that_diverges_says_so_by_its_residual(random):
    matrix, wanted = spd(random, 10, 0.1, 1), random.normal(size=10)
    good = solve(Neumann(50, 1.9), matrix, wanted)
    bad = solve(Neumann(50, 3.0), matrix, wanted)
    assert good.residual < 0.1 < 100 < bad.residual
    assert bad.iterations == 50


def test_a_neumann_series_is_what_its_formula_says(random):
    matrix, wanted = spd(random, 6, 0.1, 1), random.normal(size=6)
    scale = random.uniform(0.5, 1, size=6)
    found = solve(
        Neumann(3, 0.7), matrix, wanted, damping=0.2, precondition=jnp.array(scale)
    )
    step = np.eye(6) - 0.7 * scale[:, None] * (matrix + 0.2 * np.eye(6))
    terms = [np.linalg.matrix_power(step, k) for k in range(4)]
    assert relative(found.vector, 0.7 * sum(terms) @ (scale * wanted)) < 1e-12


@pytest.mark.parametrize("solver", FREE, ids=["Identity", "OneStep"])
def test_solvers_without_products_make_none_and_know_no_residual(solver, random):
    wanted = {"a": jnp.asarray(random.normal(size=3)), "b": jnp.ones(())}
    found, state = solver.solve(refuse, wanted, solver.init(wanted), damping=0.1)
    assert relative(found.vector, jax.tree.map(lambda w: w / 2, wanted)) < 1e-12
    assert np.isnan(found.residual) and found.iterations == 0 and state == ()
    assert not solver.products


def test_the_identity_takes_a_preconditioner(random):
    wanted = {"a": jnp.ones((2, 3)), "b": jnp.ones(4)}
    scale = {"a": jnp.full((2, 3), 2.0), "b": jnp.arange(4.0)}
    found, _ = Identity(0.5).solve(refuse, wanted, precondition=scale)
    assert found.vector["a"].tolist() == [[1.0] * 3] * 2
    assert found.vector["b"].tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("damping", [0.0, -1.0, jnp.ones(12)])
def test_nystrom_refuses_what_it_cannot_invert(damping):
    with pytest.raises(ValueError, match="number > 0 as damping"):
        Nystrom(3).solve(lambda v: v, jnp.ones(12), damping=damping)


def test_nystrom_inverts_what_has_low_rank(random):
    low = random.normal(size=(40, 4))
    matrix, wanted = low @ low.T, random.normal(size=40)
    exact = np.linalg.solve(matrix + 0.1 * np.eye(40), wanted)
    full = solve(Nystrom(4), matrix, wanted, damping=0.1)
    less = solve(Nystrom(3), matrix, wanted, damping=0.1)
    assert relative(full.vector, exact) < 1e-8 and full.residual < 1e-8
    assert less.residual > 0.01
    other = solve(Nystrom(3, seed=1), matrix, wanted, damping=0.1)
    assert relative(other.vector, less.vector) > 1e-3


def nested(random):
    """A tree of odd shapes, and an operator that mixes its leaves."""
    shapes = {"a": (3,), "b": {"c": (2, 2), "d": [(), (1, 4)]}}
    wanted = jax.tree.map(
        lambda shape: np.asarray(random.normal(size=shape)),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    flat, unflatten = ravel_pytree(wanted)
    matrix = spd(random, flat.size, 0.1, 1)
    return matrix, lambda v: unflatten(matrix @ ravel_pytree(v)[0]), wanted


@pytest.mark.parametrize("solver", [*ITERATIVE, *FREE], ids=name_of)
def test_every_solver_obeys_the_protocol(solver, random):
    matrix, product, wanted = nested(random)

    @functools.partial(jax.jit, static_argnames="solver")
    def run(wanted, state, solver):
        return solver.solve(product, wanted, state, damping=0.1, precondition=1.0)

    state = solver.init(wanted)
    found, after = run(wanted, state, solver)
    for one, other in ((found.vector, wanted), (after, state)):
        assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, other)
        assert jax.tree.map(jnp.result_type, one) == jax.tree.map(
            jnp.result_type, other
        )
    assert found.residual.dtype == jnp.float32 and found.residual.shape == ()
    assert found.iterations.dtype == found.negative_curvature.dtype == jnp.int32
    if isinstance(solver, Tracked):
        return  # one step a solve
    if solver.products:
        flat, _ = ravel_pytree(wanted)
        exact = np.linalg.solve(matrix + 0.1 * np.eye(12), flat)
        assert relative(found.vector, exact) < 1e-8
        assert found.residual < 1e-6
    if isinstance(solver, Nystrom):
        return
    many = jax.tree.map(lambda w: np.stack([w, -2 * w, w**2]), wanted)
    each, _ = jax.jit(jax.vmap(lambda w: solver.solve(product, w, damping=0.1)))(many)
    for place in range(3):
        one = jax.tree.map(lambda leaf, place=place: leaf[place], many)
        alone, _ = run(one, state, solver)
        got = jax.tree.map(lambda leaf, place=place: leaf[place], each.vector)
        assert relative(got, alone.vector) < 1e-9


def test_solvers_are_values():
    """Equal ones share a compiled program."""
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(solver, wanted):
        traces.append(solver)
        return solver.solve(lambda v: 2 * v, wanted, solver.init(wanted), damping=0.1)

    for solver in (ConjugateGradient(2), ConjugateGradient(2), ConjugateGradient(3)):
        run(solver, jnp.ones(2))
    assert traces == [ConjugateGradient(2), ConjugateGradient(3)]
    assert len({*ITERATIVE, *FREE}) == 6


def test_a_tracked_step_is_the_formulas(random):
    matrix, wanted = spd(random, 5, 0.1, 1), random.normal(size=5)
    state, scale = random.normal(size=5), random.uniform(0.5, 1, size=5)
    found, after = Tracked(0.3).solve(
        dense(matrix), wanted, jnp.array(state), damping=0.2, precondition=scale
    )
    left = wanted - matrix @ state - 0.2 * state
    assert relative(found.vector, state + 0.3 * scale * left) < 1e-12
    assert (after == found.vector).all()
    size = np.linalg.norm(left) / np.linalg.norm(wanted)
    assert abs(found.residual - size) < 1e-6


def test_it_agrees_with_jax_and_scipy(random):
    matrix, wanted = spd(random, 30, 0.05, 1), random.normal(size=30)
    scale = random.uniform(0.5, 2, size=30)
    for iterations in (3, 10):
        found = solve(
            ConjugateGradient(iterations), matrix, wanted, precondition=jnp.array(scale)
        )
        theirs, _ = jax.scipy.sparse.linalg.cg(
            dense(matrix), wanted, maxiter=iterations, tol=0, M=lambda v: scale * v
        )
        assert relative(found.vector, theirs) < 1e-9


def test_it_agrees_with_lineax(random):
    lineax = pytest.importorskip("lineax")
    matrix, wanted = spd(random, 30, 0.05, 1), jnp.asarray(random.normal(size=30))
    operator = lineax.FunctionLinearOperator(
        dense(matrix),
        jax.eval_shape(lambda: wanted),
        tags=lineax.positive_semidefinite_tag,
    )
    theirs = lineax.linear_solve(operator, wanted, lineax.CG(rtol=1e-12, atol=1e-12))
    found = solve(ConjugateGradient(40, tolerance=1e-12), matrix, wanted)
    assert relative(found.vector, theirs.value) < 1e-10
