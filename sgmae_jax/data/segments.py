"""What masks of pixel classes must be, wherever they come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from sgmae_jax.data.errors import BadImage, DataError
from sgmae_jax.data.images import decode_mask
from sgmae_jax.data.source import UNLABELLED_PIXEL


def read_segments(
    data: bytes, *, name: str, size: tuple[int, int], classes: int
) -> UInt8[np.ndarray, "H W"]:
    """Decodes the mask of an image.

    Args:
        data: the mask's file.
        name: what to call the mask in messages.
        size: (h, w) of its image in pixels.
        classes: how many pixel classes there are.

    Raises:
        BadImage: it is none, of another size, or names a class that is not there.
    """
    found = decode_mask(data, name=name)
    if found.shape != size:
        (h, w), (height, width) = found.shape, size
        reason = f"the mask has {h}x{w} pixels, its image {height}x{width}"
        raise BadImage(name, reason)
    highest = _highest(found)
    if highest >= classes:
        reason = (
            f"the mask has the value {highest}, but classes are 0 to {classes - 1} "
            f"and {UNLABELLED_PIXEL} (unlabelled)"
        )
        raise BadImage(name, reason)
    return found


def count_classes(
    masks: Iterable[tuple[str, Callable[[], bytes]]], *, source: str
) -> tuple[str, ...]:
    """Names "0", "1", … up to the highest class in any mask; all of them are read.

    Masks that cannot be read are passed over, they are met again as bad images.

    Args:
        masks: (name, how to read its file) of each.
        source: what to call the source in messages.

    Raises:
        DataError: no mask has a labelled pixel.
    """

    def highest(mask: tuple[str, Callable[[], bytes]]) -> int:
        name, read = mask
        try:
            return _highest(decode_mask(read(), name=name))
        except BadImage:
            return -1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        count = 1 + max(pool.map(highest, masks), default=-1)
    if not count:
        raise DataError(f"{source}: no mask has a labelled pixel")
    return tuple(map(str, range(count)))


def _highest(mask: UInt8[np.ndarray, "H W"]) -> int:
    """The highest class in a mask, -1 if no pixel is labelled."""
    labelled = mask[mask != UNLABELLED_PIXEL]
    return int(labelled.max()) if labelled.size else -1
