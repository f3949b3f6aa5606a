"""Linear probe in closed form: one eigendecomposition serves every penalty.

With standardised features X (n items) and centred one-hot targets Y, ridge regression
with penalty a per item has the solution W = (XᵀX/n + aI)⁻¹ XᵀY/n. The eigenvectors of
XᵀX/n, or of XXᵀ/n where there are fewer items than features, diagonalise it for all a
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    centre = fit_x.mean(0, dtype=np.float64)
    fit, test = fit_x - centre, x - centre
    order = np.random.default_rng(seed).permutation(len(fit_x))
    held, kept = np.split(order, [len(order) // _FOLDS])
    flat = _flat(centre, fit)
    # What the held-out fifth adds is taken away: one Gram matrix serves both fits.
    whole = _sums(fit, fit_y, num_classes) if fit.shape[1] <= len(kept) else None
    penalty = float(penalties[0])
    if len(penalties) > 1:
        candidates = sorted(map(float, penalties), reverse=True)
        out, out_y = fit[held], fit_y[held]
        if whole:
            inside = whole.less(_sums(out, out_y, num_classes))
            layers = _from_sums(inside, flat, candidates, rule)
        else:
            some = fit[kept], fit_y[kept]
            layers = _from_items(*some, num_classes, flat, candidates, rule)
        penalty = candidates[int(np.argmax(_hits(layers, out, out_y).mean(1)))]
    if whole:
        layers = _from_sums(whole, flat, [penalty], rule)
    else:
        layers = _from_items(fit, fit_y, num_classes, flat, [penalty], rule)
    return ProbeResult(float(_hits(layers, test, y).mean()), penalty)


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
    centre = fit_x.mean(0, dtype=np.float64)
    fit = fit_x - centre
    flat = _flat(centre, fit)
    if fit.shape[1] <= len(fit):
        sums = _sums(fit, fit_y, num_classes)
        layers = _from_sums(sums, flat, penalties, rule)
    else:
        layers = _from_items(fit, fit_y, num_classes, flat, penalties, rule)
    return _hits(layers, x - centre, y)


class _Layers(NamedTuple):
    """A linear classifier of centred features for every penalty."""

    kernels: Float[np.ndarray, "p D K"]
    biases: Float[np.ndarray, "p K"]


class _Sums(NamedTuple):
    """All that ridge regression asks of its items, if they are more than features."""

    items: float
    total: Float[np.ndarray, " D"]
    outer: Float[np.ndarray, "D D"]
    by_class: Float[np.ndarray, "D K"]
    counts: Float[np.ndarray, " K"]

    def less(self, other: _Sums) -> _Sums:
        """The sums without those of some of the items."""
        return _Sums(
            self.items - other.items,
            self.total - other.total,
            self.outer - other.outer,
            self.by_class - other.by_class,
            self.counts - other.counts,
        )


def _sums(x: np.ndarray, y: np.ndarray, num_classes: int) -> _Sums:
    targets = np.eye(num_classes)[y]
    return _Sums(len(x), x.sum(0), x.T @ x, x.T @ targets, targets.sum(0))


def _flat(centre: np.ndarray, x: np.ndarray) -> Float[np.ndarray, " D"]:
    """Deviations up to which a feature counts as constant, and tells nothing.

    Its computed deviation may be rounding noise rather than an exact zero.
    """
    single = np.finfo(np.float32)
    deviation = np.sqrt(np.einsum("nd,nd->d", x, x) / len(x))
    return np.maximum(
        single.eps * np.maximum(np.abs(centre), single.tiny), 1e-6 * deviation
    )


def _inverse(deviation: np.ndarray, flat: np.ndarray) -> np.ndarray:
    return np.where(deviation > flat, 1 / np.maximum(deviation, flat), 0)


def _from_sums(
    sums: _Sums, flat: np.ndarray, penalties: Sequence[float], rule: Rule
) -> _Layers:
    """In the space of the features."""
    mean, share = sums.total / sums.items, sums.counts / sums.items
    covariance = sums.outer / sums.items - np.outer(mean, mean)
    scale = _inverse(np.sqrt(np.maximum(covariance.diagonal(), 0)), flat)
    gram = covariance * np.outer(scale, scale)
    right = (sums.by_class / sums.items - np.outer(mean, share)) * scale[:, None]
    kernels = scale[:, None] * _solve(gram, right, penalties)
    if rule == "largest":
        return _Layers(kernels, share - mean @ kernels)
    means = sums.by_class / np.maximum(sums.counts, 1)
    within = sums.outer / sums.items - (means * share) @ means.T
    return _discriminants(
        kernels, means, share, lambda kernel: kernel.T @ within @ kernel
    )


def _from_items(
    x: np.ndarray,
    y: np.ndarray,
    num_classes: int,
    flat: np.ndarray,
    penalties: Sequence[float],
    rule: Rule,
) -> _Layers:
    """In the space of the items, where there are fewer of them than features."""
    mean, items = x.mean(0), len(x)
    scale = _inverse(x.std(0), flat)
    normed = (x - mean) * scale
    targets = np.eye(num_classes)[y]
    share = targets.mean(0)
    solved = _solve(normed @ normed.T / items, targets - share, penalties)
    kernels = scale[:, None] * (normed.T @ solved) / items
    if rule == "largest":
        return _Layers(kernels, share - mean @ kernels)
    means = x.T @ targets / np.maximum(targets.sum(0), 1)
    apart = x - means.T[y]

    def spread(kernel):
        fitted = apart @ kernel
        return fitted.T @ fitted / items

    return _discriminants(kernels, means, share, spread)


def _solve(
    gram: Float[np.ndarray, "d d"], right: Float[np.ndarray, "d K"], penalties
) -> Float[np.ndarray, "p d K"]:
    """(gram + a)⁻¹ right for every penalty a."""
    if len(penalties) == 1:
        return np.linalg.solve(gram + penalties[0] * np.eye(len(gram)), right)[None]
    values, vectors = np.linalg.eigh(gram)
    values, turned = np.maximum(values, 0), vectors.T @ right
    shrunk = turned / (values + np.asarray(penalties)[:, None])[..., None]
    return vectors @ shrunk


def _discriminants(
    kernels: Float[np.ndarray, "p D K"],
    means: Float[np.ndarray, "D K"],
    share: Float[np.ndarray, " K"],
    spread: Callable[[np.ndarray], np.ndarray],
) -> _Layers:
    """The nearest class mean among fitted targets, as linear layers of the features.

    Args:
        kernels: of the regression.
        means: of the features, class by class.
        share: of the classes; one without any item is never chosen.
        spread: of fitted targets within classes, [K, K], for a kernel.
    """
    found = []
    for kernel in kernels:
        # Fitted targets sum to 0, so their spread has no inverse in one direction.
        inverse = np.linalg.pinv(spread(kernel), 1e-9, hermitian=True)
        centres = means.T @ kernel
        turned = inverse @ centres.T
        prior = np.log(np.where(share > 0, share, 1)) - (centres.T * turned).sum(0) / 2
        found.append((kernel @ turned, np.where(share > 0, prior, -np.inf)))
    return _Layers(*map(np.stack, zip(*found, strict=True)))


def _hits(layers: _Layers, x: np.ndarray, y: np.ndarray) -> Bool[np.ndarray, "p m"]:
    count, width, classes = layers.kernels.shape
    side_by_side = layers.kernels.transpose(1, 0, 2).reshape(width, count * classes)
    scores = (x @ side_by_side).reshape(len(x), count, classes) + layers.biases
    return (scores.argmax(-1) == y[:, None]).T
