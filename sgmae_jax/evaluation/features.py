"""Features of a source's images under any frozen encoder."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from sgmae_jax.data import BadImage, Source, eval_image

# Any fixed number will do: it only has to be the same in every run, so that two
# encoders are compared on the same items.
_SUBSET_SEED = 20_211_111


class Features(NamedTuple):
    """Features and labels of the readable items, in ascending order of index.

    Attributes:
        features: one row an item, float32.
        labels: their classes.
        ids: index of each item in the source.
        bad: names of the items that could not be read and were left out.
    """

    features: Float[np.ndarray, "n D"]
    labels: Int[np.ndarray, " n"]
    ids: Int[np.ndarray, " n"]
    bad: tuple[str, ...]


def raw_pixels(images: UInt8[np.ndarray, "B H W C"]) -> Float[np.ndarray, "B D"]:
    """The image itself as a feature vector in [0, 1]: the floor for any encoder."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def extract_features(
    encode: Callable[[UInt8[np.ndarray, "B H W C"]], Any],
    source: Source,
    *,
    image_size: tuple[int, int],
    crop: float = 0.875,
    batch_size: int = 256,
    limit: int | None = None,
    threads: int | None = None,
) -> Features:
    """Runs `encode` over the evaluation crops of a source.

    Every call of `encode` sees the same shape (the last batch is padded), so a
    jitted encoder compiles once; it may place the batch on devices as it likes.

    Args:
        encode: uint8 images `[batch_size, h, w, C]` to features `[batch_size, D]`.
        source: labelled images; unreadable ones are left out and named.
        image_size: (h, w) in pixels.
        crop: share of the shorter side that the central crop keeps, in (0, 1].
        batch_size: images per call; with a sharded encoder a multiple of its devices.
        limit: at most this many items, a fixed pseudo-random subset (so that sources
            sorted by class are sampled fairly); None takes all.
        threads: host threads that decode; None: as many as cores.

    Returns:
        Features in the order of the source.

    Raises:
        ValueError: the source has an item without a label, or no readable item.
    """
    ids = _subset(len(source), limit)

    def load(index: int) -> tuple[np.ndarray, int] | BadImage:
        try:
            item = source[index]
            shown = eval_image(item["image"], image_size, crop)
            return shown.image, int(item["label"])
        except BadImage as error:
            return error

    rows: list[np.ndarray] = []
    labels: list[int] = []
    read: list[int] = []
    bad: list[str] = []
    pending: tuple[Any, int] | None = None
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for start in range(0, len(ids), batch_size):
            chunk = ids[start : start + batch_size]
            images: list[np.ndarray] = []
            for index, item in zip(chunk, pool.map(load, chunk), strict=True):
                if isinstance(item, BadImage):
                    bad.append(item.name)
                    continue
                image, label = item
                if label < 0:
                    raise ValueError(
                        f"source {source.name!r} has no label for item {index}: "
                        "kNN and probe need a source with labels"
                    )
                images.append(image)
                labels.append(label)
                read.append(index)
            if not images:
                continue
            # The device computes one batch while the host decodes the next.
            result = encode(_padded(images, batch_size))
            if pending is not None:
                rows.append(_fetch(*pending))
            pending = (result, len(images))
    if pending is None:
        raise ValueError(f"source {source.name!r} has no readable item")
    rows.append(_fetch(*pending))
    return Features(
        np.concatenate(rows),
        np.asarray(labels, np.int32),
        np.asarray(read, np.int64),
        tuple(bad),
    )


def _subset(size: int, limit: int | None) -> list[int]:
    if limit is None or limit >= size:
        return list(range(size))
    order = np.random.default_rng(_SUBSET_SEED).permutation(size)
    return sorted(order[:limit].tolist())


def _padded(images: list[np.ndarray], batch_size: int) -> UInt8[np.ndarray, "B H W C"]:
    batch = np.zeros((batch_size, *images[0].shape), np.uint8)
    batch[: len(images)] = images
    return batch


def _fetch(result: Any, count: int) -> Float[np.ndarray, "n D"]:
    return np.asarray(result)[:count].astype(np.float32)
