"""A probe that is fitted on a handful of images a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sgmae_jax.evaluation.checks import check_features
from sgmae_jax.evaluation.probe import PENALTIES, ridge_hits

# Of the items that were not drawn, at most so many choose the penalty.
_CHOOSING = 2000


class FewShot(NamedTuple):
    """Accuracy of few-shot probes.

    Attributes:
        accuracy: mean over the draws, in [0, 1].
        error: standard error of that mean; 0 for a single draw.
        penalty: per item, the same for all draws.
    """

    accuracy: float
    error: float
    penalty: float


def few_shot_probe(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    *,
    num_classes: int,
    shots: int,
    draws: int = 5,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> FewShot:
    """Accuracy of ridge classifiers fitted on `shots` items of every class.

    Draws are nested: the items of 5 shots are the first of 10 shots with the same
    seed, so that a column of a table differs from the next by what was added. The
    penalty is the one that is best, on average over the draws, for items of the fit
    set that were not drawn; the test set is looked at once a draw.

    Args:
        fit_x: features to draw from.
        fit_y: their classes in [0, num_classes).
        x: features to classify.
        y: their true classes.
        num_classes: number of classes, at least 1.
        shots: items of each class, at least 1.
        draws: independent draws, at least 1.
        penalties: positive, per item, as for `ridge_probe`.
        seed: decides which items are drawn.

    Returns:
        Mean accuracy, its standard error, and the chosen penalty.

    Raises:
        ValueError: a class has fewer items than `shots`, no item is left to choose
            the penalty with, or features that do not fit.

    Reference:
        The few-shot evaluator of google-research/big_vision (1, 5, 10 per class, ridge
        in closed form, penalty chosen on other labelled images); drawing several
        times and the nesting are our reading.
    """
    check_features(fit_x, fit_y, x, y, num_classes=num_classes)
    if shots < 1 or draws < 1:
        raise ValueError(f"shots {shots} and draws {draws} must be at least 1")
    fewest = np.bincount(fit_y, minlength=num_classes).min()
    if fewest < shots:
        raise ValueError(
            f"{shots} shots need {shots} items of every class to fit, one has {fewest}"
        )
    if shots * num_classes == len(fit_y):
        raise ValueError(f"{shots} shots leave no item of the fit set to choose with")
    candidates = sorted(map(float, penalties), reverse=True)
    chosen = np.zeros(len(candidates))
    found = []
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(fit_y))
        taken = np.concatenate(
            [order[fit_y[order] == label][:shots] for label in range(num_classes)]
        )
        rest = np.setdiff1d(order, taken, assume_unique=True)[:_CHOOSING]
        few = fit_x[taken], fit_y[taken]
        # Both sets at once, since what costs is the decomposition.
        both = np.concatenate([fit_x[rest], x]), np.concatenate([fit_y[rest], y])
        right = ridge_hits(*few, *both, num_classes, candidates)
        chosen += right[:, : len(rest)].mean(1)
        found.append(right[:, len(rest) :].mean(1))
    best = int(np.argmax(chosen))
    accuracies = np.stack(found)[:, best]
    error = accuracies.std(ddof=1) / np.sqrt(draws) if draws > 1 else 0.0
    return FewShot(float(accuracies.mean()), float(error), candidates[best])
