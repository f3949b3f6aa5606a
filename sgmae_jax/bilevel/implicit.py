"""Hypergradients by the implicit function theorem, through one level or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgmae_jax.bilevel.products import (
    Loss,
    Operator,
    hessian,
    mixed_product,
    require_connected,
)
from sgmae_jax.bilevel.solvers import Solution, Solver


class Level(NamedTuple):
    """A problem min over x of loss(x, hyper), and how its response is differentiated.

    Attributes:
        loss: (inner, hyper) -> scalar.
        solver: of the linear system with the inner Hessian.
        damping: added to it; a number or a tree like x.
        precondition: for the solver; a number or a tree like x.
        curvature: (inner, hyper) -> operator in the Hessian's place; None: the Hessian.
        product: the mixed product; see `mixed_product`.
    """

    loss: Loss
    solver: Solver
    damping: float | PyTree = 0.0
    precondition: float | PyTree = 1.0
    curvature: Callable[[Any, Any], Operator] | None = None
    product: Callable[[Loss, Any, Any, Any], PyTree] = mixed_product


def implicit_vjp(
    level: Level, inner: PyTree, hyper: PyTree, cotangent: PyTree, state: PyTree = ()
) -> tuple[PyTree, Solution, PyTree]:
    """Pulls a cotangent of x*(hyper) back to hyper: -(d2 loss/d hyper dx) H^-1 w.

    Args:
        level: the inner problem.
        inner: x, at or near its minimum.
        hyper: the point.
        cotangent: w, like `inner`.
        state: of the solver, where it keeps any.

    Returns:
        (cotangent of hyper, the linear system's solution, the solver's state)

    Raises:
        NoForwardMode, Disconnected: see `mixed_product`.
    """
    operator: Operator = _no_product
    if level.solver.products:
        curvature = level.curvature or _hessian_of(level.loss)
        operator = curvature(inner, hyper)
    solved, state = level.solver.solve(
        operator,
        cotangent,
        state,
        damping=level.damping,
        precondition=level.precondition,
    )
    mixed = level.product(level.loss, inner, hyper, solved.vector)
    return _map_floats(jnp.negative, mixed), solved, state


def best_response(
    level: Level, optimize: Callable[[Any, Any], PyTree] | None = None
) -> Callable[[Any, Any], PyTree]:
    """A function that a user can differentiate: hyper -> x*(hyper).

        respond = best_response(Level(inner_loss, ConjugateGradient(20)), optimize)
        jax.grad(lambda t: outer_loss(respond(start, t), t))(t)

    Two of them, one within the other's outer loss, make three levels. Solvers that
    keep a state begin anew each time. Reverse mode only.

    Args:
        level: the inner problem. What its loss closes over is a constant; everything
            that is differentiated goes through `hyper`.
        optimize: (start, hyper) -> x near the minimum; None: `start` is.

    Returns:
        (start, hyper) -> x*; its derivative by `start` is zero.
    """

    @jax.custom_vjp
    def respond(start: PyTree, hyper: PyTree) -> PyTree:
        return start if optimize is None else optimize(start, hyper)

    def forward(start, hyper):
        found = respond(start, hyper)
        return found, (found, hyper)

    def backward(saved, cotangent):
        found, hyper = saved
        state = level.solver.init(found)
        of_hyper, _, _ = implicit_vjp(level, found, hyper, cotangent, state)
        return None, of_hyper  # None: zero, whatever the start looks like

    respond.defvjp(forward, backward)
    return respond


class Hypergradient(NamedTuple):
    """A hypergradient through two levels, and what is worth knowing of it.

    Attributes:
        value: like `hyper`.
        loss: the outer one.
        direct: what the outer loss wants of x by itself; like x.
        through: what it wants of x by way of y; like x.
        wanted: their weighted sum, the right-hand side of the lower system.
        middle: the solution for y.
        lower: the solution for x.
        states: of the middle's and of the lower's solver.
    """

    value: PyTree
    loss: Float[Array, ""]
    direct: PyTree
    through: PyTree
    wanted: PyTree
    middle: Solution
    lower: Solution
    states: tuple[PyTree, PyTree]


def _same(x: PyTree) -> PyTree:
    return x


def hypergradient(
    outer: Callable[[Any, Any, Any], Float[Array, ""]],
    middle: Level,
    lower: Level,
    x: PyTree,
    y: PyTree,
    hyper: PyTree,
    *,
    views: tuple[Callable[[Any], PyTree], Callable[[Any], PyTree]] = (_same, _same),
    weights: tuple[float, float] = (1.0, 1.0),
    states: tuple[PyTree, PyTree] = ((), ()),
) -> Hypergradient:
    """The derivative by `hyper` of outer(x*, y*(x*), hyper) with x* = x*(hyper).

    y is the minimum of `middle` for given x, x that of `lower` for given hyper. Both
    paths from the outer loss to x meet before the lower system is solved, once.

    Args:
        outer: (what it sees of x, y, hyper) -> scalar.
        middle: its loss takes (y, what it sees of x).
        lower: its loss takes (x, hyper).
        x: any tree.
        y: any tree.
        hyper: any tree.
        views: what the middle and the outer loss see of x; evaluated once, so that
            the middle system is solved on features, not on networks.
        weights: of the direct path and of the path through y.
        states: of the two solvers.

    Raises:
        Disconnected: a view does not depend on x, or a loss not on its level's above.
        NoForwardMode: see `forward_mode`.

    Reference: the chain of best-response derivatives in Choe et al., Betty (2023).
    """
    for view, reader in zip(views, ("middle", "outer"), strict=True):
        require_connected(view, x, f"what the {reader} loss sees", "the lower variable")
    seen_by_middle, pull_middle = jax.vjp(views[0], x)
    seen_by_outer, pull_outer = jax.vjp(views[1], x)
    differentiate = jax.value_and_grad(outer, argnums=(0, 1, 2), allow_int=True)
    loss, (of_seen, of_y, of_hyper) = differentiate(seen_by_outer, y, hyper)
    of_features, solved_y, state_y = implicit_vjp(
        middle, y, seen_by_middle, of_y, states[0]
    )
    (direct,) = pull_outer(of_seen)
    (through,) = pull_middle(of_features)
    wanted = jax.tree.map(
        lambda one, other: weights[0] * one + weights[1] * other, direct, through
    )
    implicit, solved_x, state_x = implicit_vjp(lower, x, hyper, wanted, states[1])
    return Hypergradient(
        value=_map_floats(jnp.add, of_hyper, implicit),
        loss=loss,
        direct=direct,
        through=through,
        wanted=wanted,
        middle=solved_y,
        lower=solved_x,
        states=(state_y, state_x),
    )


def _hessian_of(loss: Loss) -> Callable[[Any, Any], Operator]:
    return lambda inner, hyper: hessian(lambda x: loss(x, hyper), inner)


def _no_product(vector: PyTree) -> PyTree:
    raise NotImplementedError("a solver with products = False has asked for one")


def _map_floats(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    """Of cotangents; those of integers, float0, stay as they are."""

    def one(first: Any, *others: Any) -> Any:
        is_integer = first.dtype == jax.dtypes.float0
        return first if is_integer else function(first, *others)

    return jax.tree.map(one, *trees)
