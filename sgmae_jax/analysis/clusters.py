"""How well a bi-partition or a mask agrees with the object, where that is known."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Shaped


def adjusted_rand_index(
    first: Shaped[np.ndarray, " N"], second: Shaped[np.ndarray, " N"]
) -> float:
    """Agreement of two partitions of the same items, corrected for chance.

    Args:
        first: a cluster's name for each item.
        second: likewise; the names need not be the same.

    Returns:
        1 for equal partitions, 0 on average for random ones; may be negative. Two
        partitions in a single cluster each are equal.

    Raises:
        ValueError: another number of items, or none.

    Reference: Hubert and Arabie, Comparing Partitions (1985).
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            f"needs two partitions of the same items, got {first.shape} and "
            f"{second.shape}"
        )
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    both = _pairs(table)
    in_first, in_second = _pairs(table.sum(1)), _pairs(table.sum(0))
    expected = in_first * in_second / max(_pairs(np.array([first.size])), 1)
    most = (in_first + in_second) / 2
    if most == expected:  # one cluster, or every item alone, in both
        return 1.0
    return float((both - expected) / (most - expected))


def intersection_over_union(
    first: Bool[np.ndarray, "*shape"], second: Bool[np.ndarray, "*shape"]
) -> float:
    """Share of the items in either set that are in both, 0 to 1; 1 if both are empty.

    Raises:
        ValueError: another shape.
    """
    first, second = _alike(first, second)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def recall(
    found: Bool[np.ndarray, "*shape"], wanted: Bool[np.ndarray, "*shape"]
) -> float:
    """Share of the wanted items that are found, 0 to 1; 1 if none is wanted.

    Raises:
        ValueError: another shape.
    """
    found, wanted = _alike(found, wanted)
    count = np.count_nonzero(wanted)
    return np.count_nonzero(found & wanted) / count if count else 1.0


def token_object(
    object_mask: Bool[np.ndarray, "H W"], patch_size: tuple[int, int]
) -> Bool[np.ndarray, " N"]:
    """The tokens that belong to the object: more than half of the patch shows it.

    Args:
        object_mask: True on the object's pixels.
        patch_size: (height, width) in pixels.

    Raises:
        ValueError: the mask is no whole number of patches.
    """
    (height, width), (rows, columns) = np.shape(object_mask), patch_size
    if height % rows or width % columns:
        raise ValueError(
            f"a mask of {height}x{width} pixels is no whole number of patches of "
            f"{rows}x{columns}"
        )
    cut = np.asarray(object_mask, float).reshape(
        height // rows, rows, width // columns, columns
    )
    return (cut.mean((1, 3)) > 0.5).reshape(-1)


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1) / 2).sum())


def _alike(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as bool, of one shape."""
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {first.shape} and {second.shape}")
    return first, second
