"""How good answers are: errors of numbers, ranks, chances of classes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def rmse(found: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean(np.square(np.float64(found) - truth))))


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Places from the smallest, 1, up; equal values share the mean of their places."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def spearman(found: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]) -> float:
    """Correlation of ranks; NaN where one side does not vary."""
    one, two = ranks(found), ranks(truth)
    one, two = one - one.mean(), two - two.mean()
    scale = np.sqrt((one @ one) * (two @ two))
    return float(one @ two / scale) if scale else float("nan")


def roc_auc(score: Float[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> float:
    """Chance that a positive scores above a negative, ties counted half.

    Args:
        score: the higher, the more likely positive.
        label: 0 or 1; NaN is returned where one of them is not there.

    Reference: Mann and Whitney (1947).
    """
    positive = label == 1
    many, few = int(positive.sum()), int((~positive).sum())
    if not many or not few:
        return float("nan")
    above = ranks(score)[positive].sum() - many * (many + 1) / 2
    return float(above / (many * few))


def accuracy(logits: Float[np.ndarray, "n K"], label: Int[np.ndarray, " n"]) -> float:
    """Share whose largest logit is that of the label."""
    return float((logits.argmax(-1) == label).mean())
