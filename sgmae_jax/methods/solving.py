"""The solvers that a config names, and what they cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from sgmae_jax.bilevel import (
    ConjugateGradient,
    Hypergradient,
    Identity,
    Neumann,
    Nystrom,
    Solver,
    Tracked,
    adam_scale,
)
from sgmae_jax.methods.base import Metrics

# Of the mean scale, for weights whose gradients AdamW has hardly seen.
_FLOOR = 1e-2


def make_solvers(part: Any) -> tuple[Solver, Solver]:
    """The solvers of the autoencoder's and of the head's linear system.

    Args:
        part: a config's `method` section. "one_step" needs the optimizer's state: the
            identity stands in its place.
    """
    solvers: dict[str, Solver] = {
        "identity": Identity(part.rate),
        "one_step": Identity(),
        "neumann": Neumann(part.iterations, part.rate),
        "cg": ConjugateGradient(part.iterations),
        "tracked": Tracked(part.rate),
        "nystrom": Nystrom(part.iterations),
    }
    heads: dict[str, Solver] = {
        "identity": Identity(),
        "cg": ConjugateGradient(part.head_iterations),
    }
    return solvers[part.solver], heads[part.head_solver]


def solver_forwards(part: Any) -> float:
    """Cost of the lower level's solve and mixed product, in masked forward passes.

    A product with the Hessian costs 5.75 passes, with Gauss-Newton's 3.9, and the
    first of each 8 and 5, which keep what the others need.
    """
    first, later = (8.0, 5.75) if part.curvature == "hessian" else (5.0, 3.9)
    products = {
        "identity": 0,
        "one_step": 0,
        "tracked": 1,
        "nystrom": part.iterations + 1,
    }.get(part.solver, part.iterations)
    solve = first + later * (products - 1) if products else 0.0
    if part.solver == "one_step":
        solve = 3.0  # the gradient
    # A difference needs the error at two points; a slope, values and tangents.
    mixed = 3.0 if part.product == "exact" else 2.0
    if part.token_gradient:
        mixed *= 3.0
    return solve + mixed


def damping_of(part: Any, optim: Any, state: optax.OptState) -> tuple[Any, Any]:
    """Damping and preconditioner of the autoencoder's system.

    Args:
        part: a config's `method` section.
        optim: its `optim` section.
        state: of the optimizer whose sub-tree "model" is the autoencoder.

    Returns:
        Two numbers; or two trees, where AdamW's second moments are asked for.
    """
    if part.precondition == "none":
        return part.damping, 1.0
    scale = floored(adam_scale(state, b2=optim.b2, eps=optim.eps)["model"])
    return optax.tree.scale(part.damping, scale), jax.tree.map(jnp.reciprocal, scale)


def floored(scale: PyTree) -> PyTree:
    """A positive tree, raised by a hundredth of its mean.

    Weights without a gradient (biases of keys) have a scale of nothing, and would be
    moved without end by what preconditions with its inverse.
    """
    mean = optax.tree.sum(scale) / optax.tree.size(scale)
    return jax.tree.map(lambda one: one + _FLOOR * mean, scale)


def cosine(first: PyTree, second: PyTree) -> Float[Array, ""]:
    """Of the angle between two trees; 0 where one of them is zero."""
    sizes = optax.tree.norm(first) * optax.tree.norm(second)
    return optax.tree.vdot(first, second) / jnp.where(sizes > 0, sizes, 1)


def hypergradient_metrics(found: Hypergradient) -> Metrics:
    """What the log says of a hypergradient.

    Returns:
        "loss"; the norms of the two paths before the lower system and the cosine
        between them; of its solution the norm, the cosine with the right-hand side,
        the relative residual, the products and whether it met negative curvature; the
        relative residual of the head's system.
    """
    return {
        "loss": found.loss,
        "direct_norm": optax.tree.norm(found.direct),
        "through_head_norm": optax.tree.norm(found.through),
        "paths_cosine": cosine(found.direct, found.through),
        "adjoint_norm": optax.tree.norm(found.lower.vector),
        "adjoint_cosine": cosine(found.lower.vector, found.wanted),
        "residual": found.lower.residual,
        "iterations": found.lower.iterations.astype(jnp.float32),
        "negative_curvature": found.lower.negative_curvature.astype(jnp.float32),
        "head_residual": found.middle.residual,
    }


def zero_unless(good: Bool[Array, ""], tree: PyTree) -> PyTree:
    """The tree, or zeros."""
    return optax.tree.where(good, tree, optax.tree.zeros_like(tree))
