"""Pictures of the classes of pixels, true ones beside predicted ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Int, UInt8

from sgmae_jax.analysis.pictures import enlarged, sheet
from sgmae_jax.data import UNLABELLED_PIXEL

_TITLES = ("input", "true classes", "predicted classes")
_CAPTION = "One colour a class, class 0 black, unlabelled pixels grey."
_REPEATED = " Classes {count} apart share a colour."
_GREY = np.array((150, 150, 150), np.uint8)
# Told apart under normal and red-green-blind sight (tests/analysis/test_segments.py).
PALETTE = np.array(
    [
        (0, 0, 0),
        (255, 255, 0),
        (0, 0, 255),
        (204, 153, 0),
        (153, 204, 255),
        (102, 51, 0),
        (153, 102, 255),
        (255, 255, 153),
        (0, 0, 102),
        (204, 153, 102),
        (102, 102, 153),
        (255, 255, 255),
    ],
    np.uint8,
)


def segments_sheet(
    images: UInt8[Array, "B H W C"],
    true: UInt8[Array, "B H W"],
    predicted: Int[Array, "B H W"],
) -> UInt8[np.ndarray, "height width 3"]:
    """A sheet with one row an example: input, true classes, predicted classes.

    Args:
        images: what the batch held, before normalisation.
        true: classes, or 255 where a pixel has none.
        predicted: classes.
    """
    columns = [np.asarray(images), coloured(true), coloured(predicted)]
    caption = _CAPTION
    labelled = np.asarray(true)[np.asarray(true) != UNLABELLED_PIXEL]
    if max(labelled.max(initial=0), np.max(predicted)) >= len(PALETTE):
        caption += _REPEATED.format(count=len(PALETTE))
    return sheet([enlarged(column) for column in columns], _TITLES, caption=caption)


def coloured(classes: Int[Array, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """The colour of each class; grey for 255."""
    index = np.asarray(classes)
    found = PALETTE[index % len(PALETTE)]
    return np.where((index == UNLABELLED_PIXEL)[..., None], _GREY, found)
