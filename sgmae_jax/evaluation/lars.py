"""The linear probe by LARS, as MAE's authors train it, on features that are given."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from sgmae_jax.evaluation.checks import check_features
from sgmae_jax.models.head import cross_entropy
from sgmae_jax.models.statistics import no_statistics, running, standardised
from sgmae_jax.optimizer import make_lars

_MOMENTUM, _TRUST = 0.9, 0.001
_WARMUP = 1 / 9  # of the run: 10 epochs of 90


def lars_probe(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    *,
    num_classes: int,
    epochs: int = 90,
    batch_size: int = 512,
    rate: float = 6.4,
    seed: int = 0,
) -> float:
    """Accuracy of a linear layer trained by LARS behind a batch norm.

    The norm has no parameters: it standardises by the batch while it trains and by
    running statistics when it is scored. The rate rises from 0 for a ninth of the run
    and falls to 0 along half a cosine. The whole run is one compiled program.

    Args:
        fit_x: features to fit.
        fit_y: their classes in [0, num_classes).
        x: features to classify.
        y: their true classes.
        num_classes: number of classes, at least 1.
        epochs: passes over the fit set, each in a new order.
        batch_size: at least 2; more than n are cut to n. What is left over at the end
            of an epoch is dropped.
        rate: at its peak, whatever the batch size: a step of LARS is a share of the
            weights' length, so that a smaller batch does not ask for a smaller rate.
        seed: decides the initial weights and the orders.

    Returns:
        Share of correct answers in [0, 1].

    Raises:
        ValueError: fewer than two items or a setting out of range, or features that do
            not fit.

    Reference:
        facebookresearch/mae main_linprobe.py; 6.4 is its peak, 0.1 * 16384 / 256. That
        the same features are shown in every epoch, instead of new crops, is what makes
        this one cheap; the method `linear_probe` shows crops.
    """
    check_features(fit_x, fit_y, x, y, num_classes=num_classes)
    batch_size = min(batch_size, len(fit_x))
    if batch_size < 2 or epochs < 1 or not rate > 0:
        raise ValueError(
            f"the probe needs two items, an epoch and a rate above 0, got batches of "
            f"{batch_size}, {epochs} epochs, rate {rate}"
        )
    weights, statistics = _fit(
        jnp.asarray(fit_x, jnp.float32),
        jnp.asarray(fit_y, jnp.int32),
        jax.random.key(seed),
        num_classes=num_classes,
        epochs=epochs,
        batch_size=batch_size,
        rate=float(rate),
    )
    logits = _logits(weights, standardised(jnp.asarray(x, jnp.float32), **statistics))
    return float(np.mean(np.argmax(logits, -1) == y))


def _logits(weights: Any, features: Float[Array, "B D"]) -> Float[Array, "B K"]:
    return features @ weights["kernel"] + weights["bias"]


@functools.partial(
    jax.jit, static_argnames=("num_classes", "epochs", "batch_size", "rate")
)
def _fit(
    x: Float[Array, "n D"],
    y: Int[Array, " n"],
    key: Key[Array, ""],
    *,
    num_classes: int,
    epochs: int,
    batch_size: int,
    rate: float,
):
    """Weights and running statistics after all epochs."""
    (items, width), steps = x.shape, len(x) // batch_size
    optimizer = make_lars(
        SimpleNamespace(
            base_lr=rate * 256 / batch_size,
            min_lr=0.0,
            warmup_epochs=epochs * _WARMUP,
            weight_decay=0.0,
            clip_norm=None,
            spike=None,
        ),
        momentum=_MOMENTUM,
        trust=_TRUST,
        batch_size=batch_size,
        steps_per_epoch=steps,
        total_steps=epochs * steps,
    )

    def step(carry, chosen):
        weights, state, statistics = carry
        rows = x[chosen]
        mean, var = rows.mean(0), rows.var(0)
        features = standardised(rows, mean, var)

        def loss(weights):
            return cross_entropy(_logits(weights, features), y[chosen])

        change, state = optimizer.update(jax.grad(loss)(weights), state, weights)
        statistics = running(statistics, mean, var, batch_size)
        return (optax.apply_updates(weights, change), state, statistics), None

    def epoch(carry, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), items)
        order = order[: steps * batch_size].reshape(steps, batch_size)
        return jax.lax.scan(step, carry, order)

    kernel = 0.01 * jax.random.normal(key, (width, num_classes))
    weights = {"kernel": kernel, "bias": jnp.zeros(num_classes)}
    carry = weights, optimizer.init(weights), no_statistics(width)
    (weights, _, statistics), _ = jax.lax.scan(epoch, carry, jnp.arange(epochs))
    return weights, statistics
