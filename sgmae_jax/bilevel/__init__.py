"""Implicit differentiation of nested problems, for any pytrees and any losses.

It needs nothing else of this project.
"""

from sgmae_jax.bilevel.implicit import (
    Hypergradient,
    Level,
    best_response,
    hypergradient,
    implicit_vjp,
)
from sgmae_jax.bilevel.optimizers import adam_scale, optimizer_step
from sgmae_jax.bilevel.products import (
    Disconnected,
    NoForwardMode,
    Operator,
    damped,
    gauss_newton,
    hessian,
    mixed_difference,
    mixed_product,
    require_connected,
)
from sgmae_jax.bilevel.solvers import (
    ConjugateGradient,
    Identity,
    Neumann,
    Nystrom,
    OneStep,
    Solution,
    Solver,
    Tracked,
)
from sgmae_jax.bilevel.unroll import unroll

__all__ = [
    "ConjugateGradient",
    "Disconnected",
    "Hypergradient",
    "Identity",
    "Level",
    "Neumann",
    "NoForwardMode",
    "Nystrom",
    "OneStep",
    "Operator",
    "Solution",
    "Solver",
    "Tracked",
    "adam_scale",
    "best_response",
    "damped",
    "gauss_newton",
    "hessian",
    "hypergradient",
    "implicit_vjp",
    "mixed_difference",
    "mixed_product",
    "optimizer_step",
    "require_connected",
    "unroll",
]
