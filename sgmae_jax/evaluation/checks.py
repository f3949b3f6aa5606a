"""What kNN and probe both ask of the arrays they are handed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def check_features(
    fit_x: Float[np.ndarray, "n D"],
    fit_y: Int[np.ndarray, " n"],
    x: Float[np.ndarray, "m D"],
    y: Int[np.ndarray, " m"],
    *,
    num_classes: int,
) -> None:
    """Raises ValueError with one line where features and labels cannot be scored."""
    for name, features, labels in (("fit", fit_x, fit_y), ("test", x, y)):
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"{name} set: features must be (items, width) with one label each, got "
                f"features {features.shape} and labels {labels.shape}"
            )
        if not len(features):
            raise ValueError(f"{name} set is empty")
        if not np.isfinite(features).all():
            raise ValueError(f"{name} set: features hold NaN or infinite values")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{name} set: labels must lie in [0, {num_classes}), "
                f"got {low} to {high}"
            )
    if fit_x.shape[1] != x.shape[1]:
        raise ValueError(
            f"fit and test features differ in width: {fit_x.shape[1]} and {x.shape[1]}"
        )
