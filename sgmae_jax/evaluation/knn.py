"""Weighted nearest-neighbour classification on frozen features."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sgmae_jax.evaluation.checks import check_features

_LOG = logging.getLogger(__name__)
# Similarities held at once: 2^25 floats are 128 MiB.
_SIMILARITIES = 1 << 25


def knn_accuracy(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of a vote of the k nearest neighbours: `knn_accuracies` of one k."""
    (accuracy,) = knn_accuracies(
        fit_x, fit_y, x, y, num_classes=num_classes, ks=(k,), temperature=temperature
    ).values()
    return accuracy


def knn_accuracies(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    *,
    num_classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
) -> dict[int, float]:
    """Accuracies of votes of the nearest neighbours, all k from one search.

    Neighbours are near by cosine similarity; one of similarity s votes with weight
    exp(s / temperature). Ties go to the lower index among neighbours and to the lower
    class among classes, so the result is a function of its arguments alone.

    Args:
        fit_x: features that vote.
        fit_y: their classes in [0, num_classes).
        x: features to classify.
        y: their true classes.
        num_classes: number of classes, at least 1.
        ks: numbers of neighbours that vote; more than n are cut to n, and the log
            says so.
        temperature: above 0; small lets the nearest decide, large counts heads.

    Returns:
        k -> share of correct votes in [0, 1], in the order of `ks`.

    Raises:
        ValueError: k or temperature out of range, or features that do not fit.

    Reference:
        Wu et al., "Unsupervised feature learning via non-parametric instance
        discrimination", 2018, section 3.4 (weighted kNN, same k range and temperature).
    """
    check_features(fit_x, fit_y, x, y, num_classes=num_classes)
    if not ks or min(ks) < 1:
        raise ValueError(f"k must be at least 1, got {', '.join(map(str, ks))}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if max(ks) > len(fit_x):
        _LOG.warning("kNN: k=%d cut to the %d fitted items", max(ks), len(fit_x))
    vote = functools.partial(
        _vote,
        ks=tuple(min(k, len(fit_x)) for k in ks),
        temperature=float(temperature),
        num_classes=num_classes,
    )
    anchors = _unit(jnp.asarray(fit_x, jnp.float32))
    classes = jnp.asarray(fit_y, jnp.int32)
    rows = max(1, min(len(x), _SIMILARITIES // len(fit_x)))
    correct = np.zeros(len(ks), np.int64)
    for start in range(0, len(x), rows):
        # Padded, so that all chunks share one compilation.
        chunk = np.zeros((rows, x.shape[1]), np.float32)
        part = x[start : start + rows]
        chunk[: len(part)] = part
        voted = np.asarray(vote(anchors, classes, jnp.asarray(chunk)))
        correct += np.sum(voted[:, : len(part)] == y[start : start + rows], axis=1)
    return dict(zip(ks, (correct / len(x)).tolist(), strict=True))


@functools.partial(jax.jit, static_argnames=("ks", "temperature", "num_classes"))
def _vote(
    anchors: Float[Array, "n D"],
    classes: Int[Array, " n"],
    queries: Float[Array, "q D"],
    *,
    ks: tuple[int, ...],
    temperature: float,
    num_classes: int,
) -> Int[Array, "k q"]:
    # Accelerators round matmul inputs to 8-10 bits by default: enough to swap
    # neighbours.
    similarity = jnp.matmul(_unit(queries), anchors.T, precision="highest")
    nearest, index = _top_k(similarity, max(ks))
    # The best neighbour weighs 1: the same vote, and no overflow at low temperature.
    weight = jnp.exp((nearest - nearest[:, :1]) / temperature)
    count = jax.vmap(lambda c, w: jnp.zeros(num_classes, jnp.float32).at[c].add(w))
    votes = [count(classes[index[:, :k]], weight[:, :k]) for k in ks]
    return jnp.argmax(jnp.stack(votes), axis=-1)


def _top_k(
    x: Float[Array, "q n"], k: int
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """`jax.lax.top_k`, exactly, in two rounds that each look at far fewer numbers.

    The k largest numbers lie in the k groups with the largest maxima: each of these
    groups holds a number that goes before all of any other group. Equal numbers keep
    the order of their indices, since groups are contiguous and stay in order.
    """
    queries, n = x.shape
    size = max(1, math.isqrt(n // k))
    groups = -(-n // size)
    if groups <= k:
        return jax.lax.top_k(x, k)
    padding = ((0, 0), (0, groups * size - n))
    grouped = jnp.pad(x, padding, constant_values=-jnp.inf)
    grouped = grouped.reshape(queries, groups, size)
    chosen = jnp.sort(jax.lax.top_k(grouped.max(-1), k)[1])
    members = jnp.take_along_axis(grouped, chosen[..., None], axis=1)
    nearest, place = jax.lax.top_k(members.reshape(queries, k * size), k)
    group = jnp.take_along_axis(chosen, place // size, axis=1)
    return nearest, group * size + place % size


def _unit(x: Float[Array, "n D"]) -> Float[Array, "n D"]:
    # A zero vector has no direction: it is left zero, similarity 0 to everything.
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1)
