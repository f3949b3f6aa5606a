"""Analysis G: linear CKA between the layers of two models, on the same images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sgmae_jax.analysis.bootstrap import Interval, statistic_interval

Tokens = Float[np.ndarray, "L M N D"]


def layer_cka(first: Tokens, second: Tokens, *, draws: int = 200) -> Interval:
    """CKA of every encoder layer of one model with every layer of another.

    Patch tokens of all images are the samples, so that there are many more of them than
    dimensions, and a small sample's bias is none; images are what is resampled.

    Args:
        first: patch tokens of all layers of M images.
        second: of the same images and grid.
        draws: resamples.

    Returns:
        An interval of [L1, L2].

    Raises:
        ValueError: other images or another grid.

    Reference: Kornblith et al., Similarity of Neural Network Representations (2019).
    """
    if first.shape[1:3] != second.shape[1:3]:
        raise ValueError(
            f"CKA needs the same images and tokens, got {first.shape[1:3]} and "
            f"{second.shape[1:3]}"
        )
    count, tokens = first.shape[1:3]
    # Moments of each image; a resample is a weighted sum of them.
    sums = [layers.sum(2, dtype=np.float64) for layers in (first, second)]
    own = [_moments(one, two) for one, two in zip(first, first, strict=True)]
    other = [_moments(one, two) for one, two in zip(second, second, strict=True)]
    cross = [[_moments(one, two) for two in second] for one in first]

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum() * tokens
        means = [np.einsum("m,lmd->ld", weights, part) / total for part in sums]

        def hsic(moments, left, right):
            both = np.tensordot(weights, moments, 1) / total - np.outer(left, right)
            return np.square(both).sum()

        of_first = [hsic(m, a, a) for m, a in zip(own, means[0], strict=True)]
        of_second = [hsic(m, b, b) for m, b in zip(other, means[1], strict=True)]
        found = np.zeros((len(first), len(second)))
        for i, row in enumerate(cross):
            for j, moments in enumerate(row):
                scale = np.sqrt(of_first[i] * of_second[j])
                part = hsic(moments, means[0][i], means[1][j])
                found[i, j] = part / scale if scale > 0 else np.nan
        return found

    return statistic_interval(statistic, count, draws=draws)


def _moments(
    one: Float[np.ndarray, "M N D"], two: Float[np.ndarray, "M N E"]
) -> Float[np.ndarray, "M D E"]:
    return np.matmul(one.swapaxes(1, 2).astype(np.float64), two.astype(np.float64))
