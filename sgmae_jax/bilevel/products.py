"""Products with second derivatives, none of which is ever formed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Jaxpr, Literal
from jaxtyping import Array, Float, PyTree

# A linear map between trees of the same structure.
Operator = Callable[[PyTree], PyTree]
# (inner variable, hyper-variable) -> scalar
Loss = Callable[[Any, Any], Float[Array, ""]]


class NoForwardMode(TypeError):
    """A function has no rule for forward-mode derivatives; the message is one line."""


class Disconnected(ValueError):
    """A derivative that must not vanish is zero for every value; one line."""


_NO_FORWARD_MODE = (
    "implicit differentiation needs forward-mode derivatives of the inner loss, and a "
    "part of it has none (a jax.custom_vjp; fused attention is one): choose attention "
    "'matmul' or 'xla'"
)


@contextlib.contextmanager
def forward_mode() -> Iterator[None]:
    """Says clearly what is wrong where forward mode meets a function without it.

    Raises:
        NoForwardMode: inside, a `jax.custom_vjp` was met, or a kernel without a rule;
            fused attention is the one and holds the other.
    """
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        if not re.search("custom_vjp|Differentiation rule", str(error)):
            raise
        raise NoForwardMode(_NO_FORWARD_MODE) from error


def _require_forward_mode(program: Jaxpr) -> None:
    """Under jit, JAX itself finds a missing rule only when it compiles.

    Raises:
        NoForwardMode: a program holds the derivative of a `jax.custom_vjp`.
    """
    for equation in program.eqns:
        if equation.primitive.name == "custom_lin":
            raise NoForwardMode(_NO_FORWARD_MODE)
        for inner in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if isinstance(inner, Jaxpr):
                _require_forward_mode(inner)


def _linearize(
    function: Callable[[Any], PyTree], at: PyTree
) -> tuple[PyTree, Operator]:
    """`jax.linearize`, which says clearly where it cannot."""
    with forward_mode():
        found, push = jax.linearize(function, at)
        _require_forward_mode(jax.make_jaxpr(push)(at).jaxpr)
    return found, push


def hessian(loss: Callable[[Any], Float[Array, ""]], at: PyTree) -> Operator:
    """v -> H v, H the second derivative of a loss at a point.

    The gradient's forward pass is made once and kept: products are 30 % cheaper than
    alone, for the memory of a forward pass more.

    Args:
        loss: scalar, twice differentiable, the outer time in forward mode.
        at: the point, any tree of floats.

    Raises:
        NoForwardMode: see `forward_mode`.
    """
    return _linearize(jax.grad(loss), at)[1]


def gauss_newton(
    outputs: Callable[[Any], PyTree],
    loss: Callable[[Any], Float[Array, ""]],
    at: PyTree,
) -> Operator:
    """v -> J' H J v, J of the outputs, H of the loss by these.

    Positive semi-definite where the loss is convex in the outputs. It leaves out the
    curvature of the outputs, which counts where residuals are large: it is not the
    Hessian.

    Args:
        outputs: point -> tree of floats.
        loss: outputs -> scalar, convex.
        at: the point.

    Raises:
        NoForwardMode: see `forward_mode`.

    Reference: Schraudolph, Fast Curvature Matrix-Vector Products (2002).
    """
    found, push = _linearize(outputs, at)
    pull = jax.linear_transpose(push, at)
    curve = hessian(loss, found)

    def product(vector: PyTree) -> PyTree:
        (result,) = pull(curve(push(vector)))
        return result

    return product


def mixed_product(loss: Loss, inner: PyTree, hyper: PyTree, vector: PyTree) -> PyTree:
    """The derivative by `hyper` of the slope of `loss` along `vector`.

    That is (d2 loss / d hyper d inner) vector, exactly: forward mode by `inner`, then
    reverse mode by `hyper`. What does not depend on `hyper` is passed forward only.

    Args:
        loss: (inner, hyper) -> scalar.
        inner: the point; any tree of floats.
        hyper: the point; integer leaves get float0 zeros.
        vector: like `inner`.

    Returns:
        A tree like `hyper`.

    Raises:
        NoForwardMode: see `forward_mode`.
        Disconnected: the slope does not depend on `hyper`.
    """

    def slope(hyper: PyTree) -> Float[Array, ""]:
        return jax.jvp(lambda x: loss(x, hyper), (inner,), (vector,))[1]

    require_connected(slope, hyper, "the inner loss's gradient", "its hyper-variable")
    return jax.grad(slope, allow_int=True)(hyper)


def mixed_difference(
    loss: Loss, inner: PyTree, hyper: PyTree, vector: PyTree, *, radius: float = 0.01
) -> PyTree:
    """`mixed_product` by one central difference; no forward mode is needed.

    Args:
        loss: as there.
        inner: as there.
        hyper: as there; floats only.
        vector: as there; not zero.
        radius: the points are `radius` away from `inner`.

    Reference: Liu et al., DARTS (2019), section 2.3; leopard-ai/betty darts.py.
    """
    step = radius / norm(vector)
    by_hyper = jax.grad(loss, argnums=1)
    ahead = by_hyper(optax.tree.add_scale(inner, step, vector), hyper)
    behind = by_hyper(optax.tree.add_scale(inner, -step, vector), hyper)
    return optax.tree.scale(1 / (2 * step), optax.tree.sub(ahead, behind))


def norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm, also of numbers whose squares underflow or overflow."""
    largest = optax.tree.norm(tree, jnp.inf)
    unit = jnp.where(largest > 0, largest, 1)
    return unit * optax.tree.norm(jax.tree.map(lambda leaf: leaf / unit, tree))


def damped(operator: Operator, damping: float | Array | PyTree) -> Operator:
    """v -> (A + damping) v; a tree damps each coordinate by its own."""
    if isinstance(damping, (int, float)) and not damping:
        return operator

    def product(vector: PyTree) -> PyTree:
        return optax.tree.add(operator(vector), diagonal_product(damping, vector))

    return product


def diagonal_product(diagonal: float | Array | PyTree, vector: PyTree) -> PyTree:
    """A scalar, or a tree like `vector`, times it."""
    if isinstance(diagonal, (int, float)) or hasattr(diagonal, "dtype"):
        return jax.tree.map(lambda v: jnp.asarray(diagonal, v.dtype) * v, vector)
    return jax.tree.map(jnp.multiply, diagonal, vector)


def require_connected(
    function: Callable[[Any], PyTree], at: PyTree, what: str, of: str
) -> None:
    """Traces a function's derivative to see that it is not identically zero.

    A `stop_gradient` too many makes a hypergradient zero, and training goes on
    without a word; here it is an error.

    Args:
        function: point -> tree.
        at: the point.
        what: the function in words.
        of: its argument in words.

    Raises:
        Disconnected: no output depends on any float of the argument.
        NoForwardMode: the function is itself a derivative that does not exist.
    """
    leaves, tree = jax.tree.flatten(at)
    moving = [i for i, leaf in enumerate(leaves) if _moves(leaf)]

    def of_floats(floats: list[Array]) -> list[Array]:
        whole = list(leaves)
        for place, leaf in zip(moving, floats, strict=True):
            whole[place] = leaf
        found = jax.tree.leaves(function(jax.tree.unflatten(tree, whole)))
        return [leaf for leaf in found if _moves(leaf)]

    floats = [leaves[i] for i in moving]

    # In reverse mode: a network that has nothing else may stand between the two.
    def gradients(wanted: list[Array]) -> list[Array]:
        return jax.vjp(of_floats, floats)[1](wanted)[0]

    with forward_mode():
        found = jax.eval_shape(of_floats, floats)
        program = jax.make_jaxpr(gradients)(found).jaxpr
        _require_forward_mode(program)
    reached = set(program.invars)

    def touched(atoms: list[Any]) -> bool:
        return any(not isinstance(a, Literal) and a in reached for a in atoms)

    for equation in program.eqns:  # in order: what the cotangents reach
        if touched(equation.invars):
            reached.update(equation.outvars)
    if not touched(program.outvars):
        raise Disconnected(
            f"{what} does not depend on {of}: its derivative is zero everywhere (a "
            "stop_gradient too many?)"
        )


def _moves(leaf: Any) -> bool:
    """Whether it has a derivative: floats of JAX, NumPy and Python do."""
    kind = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jnp.issubdtype(kind, jnp.inexact)
