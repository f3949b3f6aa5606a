"""Linear probe in closed form: one eigendecomposition serves every penalty.

With standardised features X (n items) and centred one-hot targets Y, ridge regression
with penalty a per item has the solution W = (XᵀX/n + aI)⁻¹ XᵀY/n. The eigenvectors of
XᵀX/n, or of XXᵀ/n where there are fewer items than features, diagonalise it for all a
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sgmae_jax.evaluation.checks import check_features

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))
# One part in five of the fit set picks the penalty.
_FOLDS = 5
Rule = Literal["largest", "discriminant"]


class ProbeResult(NamedTuple):
    """Accuracy on the test set in [0, 1], and the penalty per item that was chosen."""

    accuracy: float
    penalty: float


def ridge_probe(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    *,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    rule: Rule = "largest",
    seed: int = 0,
) -> ProbeResult:
    """Accuracy of a ridge classifier whose penalty is chosen inside the fit set.

    Four fifths of the fit set are fitted with every penalty and scored on the last
    fifth; the best (the larger of equals) is refitted on the whole fit set. The test
    set is looked at once. Runs on the host in float64, 8 bytes a number.

    Args:
        fit_x: features to fit.
        fit_y: their classes in [0, num_classes).
        x: features to classify.
        y: their true classes.
        num_classes: number of classes, at least 1.
        penalties: positive; per item, so that a penalty means the same at any n
            (scikit-learn's alpha divided by n).
        rule: how fitted targets become a class: the "largest" of them, or the nearest
            class mean among them in units of the spread within classes,
            "discriminant", which makes it (penalised) linear discriminant analysis.
            Both are linear in the features. With more than two classes the first
            hides classes that lie between others.
        seed: decides which fifth is held out.

    Returns:
        Accuracy and the chosen penalty.

    Raises:
        ValueError: fewer than five fitted items, a penalty that is not positive, or
            features that do not fit.

    Reference:
        The few-shot evaluator of google-research/big_vision uses the same solution
        for many penalties at once; the choice inside the fit set is our reading.
        Hastie, Buja, Tibshirani, Penalized Discriminant Analysis (1995).
    """
    check_features(fit_x, fit_y, x, y, num_classes=num_classes)
    if len(fit_x) < _FOLDS:
        raise ValueError(f"the probe needs {_FOLDS} items to fit, got {len(fit_x)}")
    if not penalties or not all(np.isfinite(p) and p > 0 for p in penalties):
        raise ValueError(f"penalties must be positive numbers, got {tuple(penalties)}")
    order = np.random.default_rng(seed).permutation(len(fit_x))
    held, kept = np.split(order, [len(order) // _FOLDS])
    penalty = float(penalties[0])
    if len(penalties) > 1:
        candidates = sorted(map(float, penalties), reverse=True)
        inside = fit_x[kept], fit_y[kept], fit_x[held], fit_y[held]
        hits = ridge_hits(*inside, num_classes, candidates, rule)
        penalty = candidates[int(np.argmax(hits.mean(1)))]
    (hits,) = ridge_hits(fit_x, fit_y, x, y, num_classes, [penalty], rule)
    return ProbeResult(float(hits.mean()), penalty)


def ridge_hits(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    num_classes: int,
    penalties: Sequence[float],
    rule: Rule = "largest",
) -> Bool[np.ndarray, "p m"]:
    """Which items each penalty gets right; as `ridge_probe`, nothing is checked."""
    mean = fit_x.mean(0, dtype=np.float64)
    deviation = fit_x.std(0, dtype=np.float64)
    # A constant feature tells nothing: it becomes zero, not infinite. Its computed
    # deviation may be rounding noise rather than an exact zero.
    tiny = np.finfo(np.float32).eps * np.maximum(
        np.abs(mean), np.finfo(np.float32).tiny
    )
    scale = np.where(deviation > tiny, 1 / np.maximum(deviation, tiny), 0)
    fit_x, x = (fit_x - mean) * scale, (x - mean) * scale
    share = np.bincount(fit_y, minlength=num_classes) / len(fit_y)
    targets = np.eye(num_classes)[fit_y] - share

    # Scores are left (gram + a)⁻¹ right, in the smaller of the two spaces.
    items, width = fit_x.shape
    if width <= items:
        gram, left, right = fit_x.T @ fit_x, x, fit_x.T @ targets / items
        fit_left = fit_x
    else:
        gram, left, right = fit_x @ fit_x.T, x @ fit_x.T / items, targets
        fit_left = gram / items
    gram = gram / items
    if len(penalties) == 1:
        solved = [np.linalg.solve(gram + penalties[0] * np.eye(len(gram)), right)]
    else:
        values, vectors = np.linalg.eigh(gram)
        values, turned = np.maximum(values, 0), vectors.T @ right
        solved = [vectors @ (turned / (values + a)[:, None]) for a in penalties]
    if rule == "discriminant":
        solved_scores = [
            _discriminant(fit_left @ weights, fit_y, left @ weights, share)
            for weights in solved
        ]
    else:
        solved_scores = [left @ weights + share for weights in solved]
    return np.stack([np.argmax(scores, 1) == y for scores in solved_scores])


def _discriminant(
    fitted: Float[np.ndarray, "n K"],
    fit_y: Int[np.ndarray, " n"],
    values: Float[np.ndarray, "m K"],
    share: Float[np.ndarray, " K"],
) -> Float[np.ndarray, "m K"]:
    """Scores of classes by distance to their means among the fitted targets.

    Args:
        fitted: what the regression makes of the fitted items.
        fit_y: their classes.
        values: what it makes of the others.
        share: of the classes among the fitted items; one without any is never chosen.
    """
    present = share > 0
    counts = np.maximum(np.bincount(fit_y, minlength=len(share)), 1)
    sums = np.zeros((len(share), fitted.shape[1]))
    np.add.at(sums, fit_y, fitted)
    means = sums / counts[:, None]
    within = fitted - means[fit_y]
    # Fitted targets sum to 0, so their spread has no inverse in one direction.
    inverse = np.linalg.pinv(within.T @ within / len(fitted), 1e-9, hermitian=True)
    turned = inverse @ means.T
    prior = np.log(np.where(present, share, 1)) - (means.T * turned).sum(0) / 2
    return np.where(present, values @ turned + prior, -np.inf)
