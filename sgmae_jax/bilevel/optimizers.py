"""What an optimizer's state says of the problem it works on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from sgmae_jax.bilevel.products import Operator

# Stands for a gradient of 0: far below any eps, and its square is a float32.
_TINY = 1e-15


def adam_scale(state: optax.OptState, *, b2: float, eps: float = 1e-8) -> PyTree:
    """sqrt(v) + eps, bias-corrected: what Adam divides a coordinate's step by.

    Its inverse preconditions; and it is the natural damping, as AdamW rests where
    P grad + decay * x = 0 with P = 1 / (sqrt(v) + eps), around which the response is
    that of the Hessian plus decay / P.

    Args:
        state: of optax's adam or adamw, alone, chained or with injected parameters.
        b2: of its second moments.
        eps: of its denominator, > 0.

    Returns:
        A tree like the parameters; after no step at all, eps everywhere.

    Raises:
        KeyError: the state holds no second moments.
    """

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    found = [n for n in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(n)]
    if not found:
        raise KeyError("the optimizer's state holds no second moments (nu)")
    # Its own count; a schedule beside it has another.
    correction = 1 - b2 ** jnp.maximum(found[0].count, 1)
    return jax.tree.map(lambda v: jnp.sqrt(v / correction) + eps, found[0].nu)


def optimizer_step(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    state: optax.OptState,
    params: PyTree,
) -> Operator:
    """w -> (du/dg)' w, u the step that an optimizer makes for a gradient g.

    Exact for any optimizer that can be differentiated, clipping included. Adam's root
    of a second moment cannot where this is 0; there it is the limit from above.

    Args:
        optimizer: of optax.
        gradient: g, like `params`.
        state: before the step.
        params: before the step.
    """
    gradient = jax.tree.map(lambda g: jnp.where(g == 0, _TINY, g), gradient)
    _, pull = jax.vjp(lambda g: optimizer.update(g, state, params)[0], gradient)

    def product(vector: PyTree) -> PyTree:
        (result,) = pull(vector)
        return result

    return product
