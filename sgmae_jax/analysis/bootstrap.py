"""Means over images, and intervals that say how far other images would move them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

Interval = dict[str, Any]  # mean, low, high: floats or (nested) lists of them
DRAWS = 1000
_LEVEL = 95.0


def draws_of(count: int, *, draws: int = DRAWS) -> Float[np.ndarray, "draws M"]:
    """How often each of M images is drawn in each resample; the same every time."""
    rng = np.random.default_rng(count)
    chosen = rng.integers(0, count, (draws, count))
    weights = np.zeros((draws, count))
    np.add.at(weights, (np.arange(draws)[:, None], chosen), 1)
    return weights


def mean_interval(rows: Float[np.ndarray, "M *shape"]) -> Interval:
    """The mean over images with its 95 % percentile interval.

    Args:
        rows: a value (of any shape) an image; what is not finite does not count, in
            the mean or in a resample.

    Returns:
        {"mean", "low", "high"}: floats or lists; None where no image counts.
    """
    rows = np.asarray(rows, np.float64)
    sound = np.isfinite(rows)
    flat = np.where(sound, rows, 0).reshape(len(rows), -1)
    there = sound.reshape(len(rows), -1).astype(np.float64)

    def means(weights: np.ndarray) -> np.ndarray:
        total = weights @ there
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, weights @ flat / total, np.nan)

    shape = rows.shape[1:]
    return _interval(
        means(np.ones((1, len(rows))))[0], means(draws_of(len(rows))), shape
    )


def statistic_interval(
    statistic: Callable[[Float[np.ndarray, " M"]], Float[np.ndarray, "*shape"]],
    count: int,
    *,
    draws: int = 200,
) -> Interval:
    """The same of any statistic of weighted images.

    Args:
        statistic: weights of M images -> its value.
        count: M.
        draws: resamples.
    """
    whole = np.asarray(statistic(np.ones(count)), np.float64)
    drawn = np.stack([statistic(one) for one in draws_of(count, draws=draws)])
    flat = drawn.reshape(draws, -1)
    return _interval(whole.reshape(-1), flat, whole.shape)


def _interval(mean: np.ndarray, drawn: np.ndarray, shape: tuple[int, ...]) -> Interval:
    tail = (100 - _LEVEL) / 2
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    sound = np.isfinite(drawn)
    for place in np.flatnonzero(sound.any(0)):
        column = drawn[sound[:, place], place]
        low[place], high[place] = np.percentile(column, (tail, 100 - tail))
    return {
        name: _plain(values.reshape(shape).tolist())
        for name, values in (("mean", mean), ("low", low), ("high", high))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if np.isfinite(value) else None
