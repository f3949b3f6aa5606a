"""How well the classes of pixels are told: confusion, mean IoU, pixel accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

from sgmae_jax.data import UNLABELLED_PIXEL, Example, Shown, Source, shown_segments
from sgmae_jax.evaluation.features import encoded_batches


class SegmentScores(NamedTuple):
    """What `score_segments` returns.

    Attributes:
        confusion: pixels by true class (row) and predicted class (column).
        bad: names of the items that could not be read and were left out.
    """

    confusion: Int64[np.ndarray, "K K"]
    bad: tuple[str, ...]

    def as_scores(self) -> dict[str, float]:
        """Mean IoU and pixel accuracy, by the names they have in scores.json."""
        return {
            "miou": mean_iou(self.confusion),
            "pixel_accuracy": pixel_accuracy(self.confusion),
        }


def confusion(
    predicted: Int[np.ndarray, "*shape"], true: Int[np.ndarray, "*shape"], classes: int
) -> Int64[np.ndarray, "K K"]:
    """Counts pixels by true class (row) and predicted class (column).

    Args:
        predicted: classes in [0, K).
        true: likewise, or 255, which is not counted.
        classes: K.

    Raises:
        ValueError: the shapes differ, or a class lies outside.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {true.shape}")
    counted = true != UNLABELLED_PIXEL
    rows, columns = (side[counted].astype(np.int64) for side in (true, predicted))
    for name, side in (("true", rows), ("predicted", columns)):
        if side.size and not 0 <= side.min() <= side.max() < classes:
            raise ValueError(
                f"{name} classes must lie in [0, {classes}), got {side.min()} to "
                f"{side.max()}"
            )
    counts = np.bincount(rows * classes + columns, minlength=classes**2)
    return counts.reshape(classes, classes)


def class_iou(confusion: Int64[np.ndarray, "K K"]) -> Float[np.ndarray, " K"]:
    """Intersection over union of each class; NaN for one that occurs nowhere.

    Args:
        confusion: of all images together; the ratio is not taken image by image.
    """
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def mean_iou(confusion: Int64[np.ndarray, "K K"]) -> float:
    """The mean of `class_iou` over the classes that occur in truth or prediction.

    A class that is predicted but never true counts with 0, one that is neither does
    not count; NaN without a labelled pixel. So do ADE20K's and Pascal's usual tools.
    """
    found = class_iou(confusion)
    occurs = ~np.isnan(found)
    return float(found[occurs].mean()) if occurs.any() else float("nan")


def pixel_accuracy(confusion: Int64[np.ndarray, "K K"]) -> float:
    """Share of the labelled pixels whose class is told; NaN without any."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def score_segments(
    predict: Callable[[UInt8[np.ndarray, "B H W C"]], Any],
    source: Source,
    *,
    image_size: tuple[int, int],
    crop: float = 0.875,
    batch_size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
) -> SegmentScores:
    """Compares predicted classes with the true ones over the evaluation crops.

    Args:
        predict: uint8 images `[batch_size, h, w, C]` to classes `[batch_size, h, w]`.
        source: with classes of pixels; unreadable items are left out and named.
        image_size: (h, w) in pixels; also where classes are compared.
        crop: share of the shorter side that the central crop keeps, in (0, 1].
        batch_size: images per call.
        limit: at most this many items, the same ones as `extract_features` takes.
        threads: host threads that decode; None: as many as cores.

    Raises:
        ValueError: the source has no classes of pixels or no readable item, or
            `predict` names classes that it has not.
    """

    def truth(index: int, item: Example, shown: Shown) -> np.ndarray:
        del index
        return shown_segments(item["segments"], shown.view, image_size)

    classes = len(source.pixel_classes)
    if not classes:
        raise ValueError(f"source {source.name!r} has no classes of pixels")
    total = np.zeros((classes, classes), np.int64)
    bad: list[str] = []
    for found, truths, _ in encoded_batches(
        predict,
        source,
        truth,
        bad,
        image_size=image_size,
        crop=crop,
        batch_size=batch_size,
        limit=limit,
        threads=threads,
    ):
        total += confusion(found, np.stack(truths), classes)
    return SegmentScores(total, tuple(bad))
