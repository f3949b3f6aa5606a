"""The images an analysis looks at, and where their objects are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from sgmae_jax.analysis.clusters import token_object
from sgmae_jax.data import BadImage, DataError, Source, eval_image

# Any fixed number: the same images in every analysis of a source.
_SEED = 7_19_773


class Samples(NamedTuple):
    """Images as a model is evaluated on them.

    Attributes:
        images: evaluation crops.
        ids: of each in its source.
        objects: tokens that belong to the object; None where the source does not say.
    """

    images: UInt8[np.ndarray, "M H W C"]
    ids: Int[np.ndarray, " M"]
    objects: Bool[np.ndarray, "M N"] | None


def load_samples(
    source: Source,
    *,
    count: int,
    image_size: tuple[int, int],
    crop: float,
    patch_size: tuple[int, int],
    log: Callable[[str], None] = print,
) -> Samples:
    """Reads a fixed random choice of a source's images.

    Args:
        source: labelled or not; unreadable images are left out and named.
        count: at most so many, >= 1.
        image_size: (h, w) in pixels.
        crop: central share, in (0, 1]; the object's mask is cropped alike.
        patch_size: (height, width) in pixels.
        log: receives one line for each unreadable image.

    Raises:
        DataError: no image can be read.
    """
    order = np.random.default_rng(_SEED).permutation(len(source))
    images, ids, objects = [], [], []
    for index in sorted(order[:count].tolist()):
        try:
            item = source[index]
        except BadImage as bad:
            log(f"left out: {bad}")
            continue
        images.append(eval_image(item["image"], image_size, crop).image)
        ids.append(index)
        if "object_mask" in item:
            pixels = item["object_mask"].astype(np.uint8)[..., None] * 255
            cropped = eval_image(pixels, image_size, crop).image[..., 0] > 127
            objects.append(token_object(cropped, patch_size))
    if not images:
        raise DataError(f"{source.name} has no readable image to analyze")
    known = len(objects) == len(images)
    return Samples(
        np.stack(images),
        np.asarray(ids, np.int32),
        np.stack(objects) if known else None,
    )
