"""Differentiation through the steps of an inner optimizer, as a reference."""

from __future__ import annotations

import jax
import optax
from jaxtyping import PyTree

from sgmae_jax.bilevel.products import Loss


def unroll(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    inner: PyTree,
    hyper: PyTree,
    *,
    steps: int,
    state: optax.OptState | None = None,
) -> PyTree:
    """The inner variable after some steps; differentiable in everything it is given.

    All steps are kept for the backward pass: for small problems and for tests.

    Args:
        loss: (inner, hyper) -> scalar.
        optimizer: of optax.
        inner: where it starts.
        hyper: what the loss depends on besides.
        steps: >= 0, static.
        state: of the optimizer at the start; None: new.
    """

    def step(carry, _):
        inner, state = carry
        gradient = jax.grad(loss)(inner, hyper)
        change, state = optimizer.update(gradient, state, inner)
        return (optax.apply_updates(inner, change), state), None

    start = inner, optimizer.init(inner) if state is None else state
    return jax.lax.scan(step, start, length=steps)[0][0]
