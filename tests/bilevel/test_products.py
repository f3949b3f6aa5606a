"""Products with second derivatives against the matrices themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.flatten_util import ravel_pytree
from jax.interpreters import mlir

from sgmae_jax.bilevel import (
    Disconnected,
    Identity,
    Level,
    Neumann,
    NoForwardMode,
    best_response,
    damped,
    gauss_newton,
    hessian,
    hypergradient,
    mixed_difference,
    mixed_product,
    require_connected,
)
from tests.bilevel.quadratic import relative

ONES = jnp.ones(3)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def trees(random):
    """An inner variable, a direction like it, a hyper-variable, and a loss of them."""
    draw = lambda *shape: jnp.asarray(random.normal(size=shape))  # noqa: E731
    data = draw(5, 3)
    inner, vector = ({"w": draw(3, 2), "b": [draw(2)]} for _ in range(2))
    hyper = {"scale": draw(5), "shift": draw()}

    def outputs(inner):
        return jnp.tanh(data @ inner["w"] + inner["b"][0])

    def loss(inner, hyper):
        each = jnp.sum((outputs(inner) - hyper["shift"]) ** 2, 1)
        return jnp.sum(jax.nn.sigmoid(hyper["scale"]) * each)

    return inner, vector, hyper, outputs, loss


def test_hessian_products(double, random):
    inner, vector, hyper, _, loss = trees(random)
    flat, back = ravel_pytree(inner)
    matrix = jax.hessian(lambda flat: loss(back(flat), hyper))(flat)
    product = hessian(lambda inner: loss(inner, hyper), inner)
    assert relative(product(vector), matrix @ ravel_pytree(vector)[0]) < 1e-12
    more = damped(product, 0.3)(vector)
    assert relative(
        more, matrix @ ravel_pytree(vector)[0] + 0.3 * ravel_pytree(vector)[0]
    )
    assert damped(product, 0.0) is product


def test_gauss_newton_products(double, random):
    inner, vector, hyper, outputs, _ = trees(random)
    flat, back = ravel_pytree(inner)
    weights = jax.nn.sigmoid(hyper["scale"])[:, None]
    convex = lambda out: jnp.sum(weights * jnp.cosh(out))  # noqa: E731
    jacobian = jax.jacobian(lambda flat: outputs(back(flat)).ravel())(flat)
    curve = jnp.diag((weights * jnp.cosh(outputs(inner))).ravel())
    matrix = jacobian.T @ curve @ jacobian
    product = gauss_newton(outputs, convex, inner)
    assert relative(product(vector), matrix @ ravel_pytree(vector)[0]) < 1e-12
    assert np.linalg.eigvalsh(matrix).min() > -1e-12
    # It leaves the curvature of the outputs out.
    whole = hessian(lambda inner: convex(outputs(inner)), inner)
    assert relative(product(vector), whole(vector)) > 0.01


def test_gauss_newton_never_has_negative_curvature(double, random):
    inner, _, _, outputs, _ = trees(random)
    target = 10 * random.normal(size=(5, 2))  # far off: the Hessian is indefinite
    squared = lambda out: jnp.sum((out - target) ** 2)  # noqa: E731
    flat, back = ravel_pytree(inner)
    bent, safe = (
        jax.vmap(lambda v, p=p: ravel_pytree(p(back(v)))[0])(jnp.eye(flat.size))
        for p in (
            hessian(lambda inner: squared(outputs(inner)), inner),
            gauss_newton(outputs, squared, inner),
        )
    )
    assert np.linalg.eigvalsh(bent).min() < -1
    assert np.linalg.eigvalsh(safe).min() > -1e-10


def test_gauss_newton_of_linear_outputs_is_the_hessian(double, random):
    matrix, target = random.normal(size=(4, 3)), random.normal(size=4)
    outputs = lambda x: {"out": matrix @ x}  # noqa: E731
    squared = lambda out: jnp.sum((out["out"] - target) ** 2)  # noqa: E731
    at, vector = jnp.asarray(random.normal(size=(2, 3)))
    one = gauss_newton(outputs, squared, at)(vector)
    other = hessian(lambda x: squared(outputs(x)), at)(vector)
    assert relative(one, other) < 1e-13
    assert relative(one, 2 * matrix.T @ matrix @ vector) < 1e-13


def test_mixed_products(double, random):
    inner, vector, hyper, _, loss = trees(random)
    flat, back = ravel_pytree(inner)
    flat_hyper, back_hyper = ravel_pytree(hyper)

    def gradient(hyper):
        return jax.grad(lambda flat: loss(back(flat), back_hyper(hyper)))(flat)

    matrix = jax.jacobian(gradient)(flat_hyper)
    found = mixed_product(loss, inner, hyper, vector)
    assert relative(found, ravel_pytree(vector)[0] @ matrix) < 1e-12
    assert jax.tree.structure(found) == jax.tree.structure(hyper)


def test_differences_err_by_the_square_of_their_radius(double, random):
    inner, vector, hyper, _, loss = trees(random)
    exact = mixed_product(loss, inner, hyper, vector)
    errors = [
        relative(mixed_difference(loss, inner, hyper, vector, radius=r), exact)
        for r in (0.1, 0.01, 0.001)
    ]
    assert 80 < errors[0] / errors[1] < 120
    assert 80 < errors[1] / errors[2] < 120
    # The radius is a distance: the length of the vector does not count.
    longer = jax.tree.map(lambda v: 1000 * v, vector)
    far = mixed_difference(loss, inner, hyper, longer, radius=0.01)
    far = jax.tree.map(lambda leaf: leaf / 1000, far)
    assert abs(relative(far, exact) / errors[1] - 1) < 1e-3


def test_differences_stand_a_tiny_vector():
    loss = lambda x, h: jnp.sum(x**2 * h)  # noqa: E731
    found = mixed_difference(loss, ONES, ONES, 1e-30 * ONES)
    assert relative(np.float64(found), np.full(3, 2e-30)) < 1e-3


def test_integers_in_the_hyper_variable_have_no_derivative():
    hyper = {"scale": jnp.arange(3.0), "order": jnp.array([2, 0, 1]), "rate": 2.0}

    def loss(x, hyper):
        return hyper["rate"] * jnp.sum(x**2 * hyper["scale"][hyper["order"]])

    found = mixed_product(loss, ONES, hyper, ONES)
    assert found["order"].dtype == jax.dtypes.float0
    assert found["scale"].tolist() == [4, 4, 4] and found["rate"] == 6
    with pytest.raises(Disconnected):  # they are nothing to depend on
        mixed_product(lambda x, i: jnp.sum(x[i] ** 2), ONES, jnp.array([0, 1]), ONES)


def test_a_hypergradient_by_a_tree_with_integers():
    hyper = {"t": jnp.arange(3.0), "order": jnp.array([2, 0, 1])}
    found = hypergradient(
        lambda x, y, h: jnp.sum(x["seen"] * y) + jnp.sum(h["t"][h["order"]] ** 2),
        Level(lambda y, seen: jnp.sum((y - seen["seen"]) ** 2) / 2, Identity()),
        Level(lambda x, h: jnp.sum((x - h["t"][h["order"]]) ** 2) / 2, Identity()),
        jnp.array([2.0, 0, 1]),
        jnp.array([2.0, 0, 1]),
        hyper,
        views=(lambda x: {"seen": x, "label": jnp.arange(3)},) * 2,
    )
    # x = y = t in another order: the value is 2 |t|^2.
    assert found.value["t"].tolist() == [0, 4, 8]
    assert found.value["order"].dtype == jax.dtypes.float0


def test_weights_of_losses_cost_forward_passes_only():
    """Reverse mode would take two more."""
    data = jnp.ones((64, 32))
    inner = [jnp.ones((32, 32)) / 32 for _ in range(4)]

    def each(inner):
        out = data
        for layer in inner:
            out = jnp.tanh(out @ layer)
        return jnp.sum(out**2, 1)

    def loss(inner, weights):
        return jnp.sum(weights * each(inner))

    def flops(function, *args):
        costs = jax.jit(function).lower(*args).compile().cost_analysis()
        return costs["flops"]

    weights = jnp.ones(64)
    forward = flops(each, inner)
    product = functools.partial(mixed_product, loss)
    assert flops(product, inner, weights, inner) <= 3.5 * forward
    backward = flops(
        lambda i, w, v: mixed_difference(loss, i, w, v), inner, weights, inner
    )
    twice = flops(
        lambda i, w, v: hessian(lambda i: loss(i, w), i)(v), inner, weights, inner
    )
    assert flops(product, inner, weights, inner) < twice / 2
    assert backward < 3.5 * forward  # two forward passes: the weights are all


@jax.custom_vjp
def square(x):
    """Has no forward mode."""
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, wanted: (2 * x * wanted,))

kernel = Primitive("kernel")
kernel.def_impl(lambda x: x**2)
kernel.def_abstract_eval(lambda x: x)
mlir.register_lowering(kernel, mlir.lower_fun(lambda x: x**2, multiple_results=False))


@jax.custom_vjp
def fused(x):
    """Calls a kernel without any rule, as fused attention does."""
    return kernel.bind(x)


fused.defvjp(lambda x: (kernel.bind(x), x), lambda x, wanted: (2 * x * wanted,))


def scanned(x):
    return jax.lax.scan(lambda x, _: (square(x), None), x, length=2)[0]


WAYS = {
    "plain": square,
    "jit": jax.jit(square),
    "checkpoint": jax.checkpoint(square),
    "scan": scanned,
    "cond": lambda x: jax.lax.cond(x[0] > 0, square, lambda x: x, x),
    "kernel": fused,
}
MESSAGE = "needs forward-mode derivatives .*custom_vjp.*choose attention 'matmul'"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_function_without_forward_mode_is_named(way, compiled):
    def loss(x, hyper):
        return jnp.sum(WAYS[way](x) * hyper)

    respond = best_response(Level(loss, Identity()))
    products = {
        "mixed_product": lambda h: mixed_product(loss, ONES, h, ONES),
        "gauss_newton": lambda h: gauss_newton(WAYS[way], jnp.sum, ONES)(h),
        "best_response": jax.grad(lambda h: jnp.sum(respond(ONES, h))),
    }
    for product in products.values():
        run = jax.jit(product) if compiled else product
        with pytest.raises(NoForwardMode, match=MESSAGE) as caught:
            run(ONES)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_hessian_without_forward_mode_is_named(compiled):
    """It is forward mode of a custom_vjp's own rules, which may well be possible."""
    run = lambda v: hessian(lambda x: jnp.sum(fused(x) ** 2), ONES)(v)  # noqa: E731
    with pytest.raises(NoForwardMode, match=MESSAGE):
        (jax.jit(run) if compiled else run)(ONES)
    plain = hessian(lambda x: jnp.sum(square(x) ** 2), ONES)
    assert plain(ONES).tolist() == [12, 12, 12]


def test_other_errors_are_left_alone():
    with pytest.raises(TypeError, match="scalar-output") as caught:
        hessian(lambda x: x, ONES)
    assert not isinstance(caught.value, NoForwardMode)
    with pytest.raises(ZeroDivisionError):
        mixed_product(lambda x, h: 1 // 0, ONES, ONES, ONES)


@pytest.mark.parametrize("way", WAYS)
def test_reverse_mode_alone_is_enough_for_the_identity_and_differences(way):
    """Above, in a view and in the hyper-variable's network."""
    f = WAYS[way]

    def run(h, f):
        return hypergradient(
            lambda x, y, h: jnp.sum(x * y),
            Level(lambda y, x: jnp.sum((y - x) ** 2) / 2, Identity()),
            Level(
                lambda x, h: jnp.sum(f(x) * f(h)), Identity(), product=mixed_difference
            ),
            ONES,
            ONES,
            h,
            views=(f, f),
        ).value

    degree = 4 if way == "scan" else 2
    found = jax.jit(lambda h: run(h, f))(ONES)
    plain = jax.jit(lambda h: run(h, lambda x: x**degree))(ONES)
    assert found.any() and relative(found, plain) < 1e-4


def test_what_stands_before_the_hyper_variable_needs_no_forward_mode():
    found = mixed_product(lambda x, h: jnp.sum(x**2 * fused(h)), ONES, ONES, ONES)
    assert found.tolist() == [4, 4, 4]


def through(way, function):
    """A function of one argument, wrapped."""
    if way == "jit":
        return jax.jit(function)
    if way == "checkpoint":
        return jax.checkpoint(function)
    if way == "scan":

        def scanned(x):
            added = lambda total, _: (total + function(x), None)  # noqa: E731
            return jax.lax.scan(added, jnp.zeros_like(x), length=2)[0]

        return scanned
    return function


@pytest.mark.parametrize("way", ["plain", "jit", "checkpoint", "scan"])
@pytest.mark.parametrize("place", ["lower", "middle", "middle view", "outer view"])
def test_a_cut_connection_is_an_error_when_it_is_traced(place, way):
    cut = {place: through(way, jax.lax.stop_gradient)}

    def at(name):
        return cut.get(name, through(way, lambda x: x))

    def run(h):
        return hypergradient(
            lambda x, y, h: jnp.sum(x * y) + jnp.sum(h),
            Level(lambda y, x: jnp.sum((y - at("middle")(x)) ** 2), Neumann(2, 0.1)),
            Level(lambda x, h: jnp.sum((x - at("lower")(h)) ** 2), Neumann(2, 0.1)),
            ONES,
            ONES,
            h,
            views=(at("middle view"), at("outer view")),
        ).value

    named = {
        "lower": "inner loss's gradient does not depend on its hyper-variable",
        "middle": "inner loss's gradient does not depend on its hyper-variable",
        "middle view": "what the middle loss sees does not depend on the lower",
        "outer view": "what the outer loss sees does not depend on the lower",
    }
    with pytest.raises(Disconnected, match=named[place]) as caught:
        jax.eval_shape(run, ONES)  # nothing is computed
    assert "\n" not in str(caught.value)
    cut.clear()
    assert jax.eval_shape(run, ONES).shape == (3,)


def test_a_loss_that_adds_its_two_arguments_up_is_not_connected():
    """Its gradient by x does not change with h."""
    with pytest.raises(Disconnected):
        mixed_product(lambda x, h: jnp.sum(x**2) + jnp.sum(h**2), ONES, ONES, ONES)


def test_one_connection_of_many_is_enough():
    require_connected(
        lambda x: (jax.lax.stop_gradient(x["a"]), jnp.arange(2), x["b"][0]),
        {"a": ONES, "b": ONES, "i": jnp.arange(2)},
        "a tuple",
        "a tree",
    )
