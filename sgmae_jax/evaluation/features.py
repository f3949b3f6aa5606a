"""Features of a source's images under any frozen encoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8

from sgmae_jax.data import BadImage, Example, Shown, Source, eval_image

# Any fixed number will do: it only has to be the same in every run, so that two
# encoders are compared on the same items.
_SUBSET_SEED = 20_211_111
Truth = TypeVar("Truth")


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
    rows: list[np.ndarray] = []
    labels: list[int] = []
    read: list[int] = []
    bad: list[str] = []

    def label_of(index: int, item: Example, shown: Shown) -> int:
        del shown
        if item["label"] < 0:
            raise ValueError(
                f"source {source.name!r} has no label for item {index}: "
                "kNN and probe need a source with labels"
            )
        return int(item["label"])

    for found, truths, ids in encoded_batches(
        encode,
        source,
        label_of,
        bad,
        image_size=image_size,
        crop=crop,
        batch_size=batch_size,
        limit=limit,
        threads=threads,
    ):
        rows.append(found.astype(np.float32))
        labels += truths
        read += ids
    return Features(
        np.concatenate(rows),
        np.asarray(labels, np.int32),
        np.asarray(read, np.int64),
        tuple(bad),
    )


def encoded_batches(
    encode: Callable[[UInt8[np.ndarray, "B H W C"]], Any],
    source: Source,
    truth: Callable[[int, Example, Shown], Truth],
    bad: list[str],
    *,
    image_size: tuple[int, int],
    crop: float,
    batch_size: int,
    limit: int | None = None,
    threads: int | None = None,
) -> Iterator[tuple[np.ndarray, list[Truth], list[int]]]:
    """Yields (results, truths, ids) of the readable items, batch by batch, in order.

    Args:
        encode: as for `extract_features`; what it returns has a row an image.
        source: where the items come from.
        truth: (index, example, what is shown of it) -> what the result is held against.
        bad: the names of unreadable items are added to it.
        image_size: as for `extract_features`, and so are all that follow.
        crop: likewise.
        batch_size: likewise.
        limit: likewise.
        threads: likewise.

    Raises:
        ValueError: the source has no readable item.
    """

    def load(index: int) -> tuple[np.ndarray, Truth] | BadImage:
        try:
            item = source[index]
            shown = eval_image(item["image"], image_size, crop)
            return shown.image, truth(index, item, shown)
        except BadImage as error:
            return error

    chosen = _subset(len(source), limit)
    pending: tuple[Any, list[Truth], list[int]] | None = None
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for start in range(0, len(chosen), batch_size):
            chunk = chosen[start : start + batch_size]
            images: list[np.ndarray] = []
            truths: list[Truth] = []
            ids: list[int] = []
            for index, item in zip(chunk, pool.map(load, chunk), strict=True):
                if isinstance(item, BadImage):
                    bad.append(item.name)
                    continue
                images.append(item[0])
                truths.append(item[1])
                ids.append(index)
            if not images:
                continue
            # The device computes one batch while the host decodes the next.
            result = encode(_padded(images, batch_size))
            if pending is not None:
                yield _fetch(*pending)
            pending = (result, truths, ids)
    if pending is None:
        raise ValueError(f"source {source.name!r} has no readable item")
    yield _fetch(*pending)


def _subset(size: int, limit: int | None) -> list[int]:
    if limit is None or limit >= size:
        return list(range(size))
    order = np.random.default_rng(_SUBSET_SEED).permutation(size)
    return sorted(order[:limit].tolist())


def _padded(images: list[np.ndarray], batch_size: int) -> UInt8[np.ndarray, "B H W C"]:
    batch = np.zeros((batch_size, *images[0].shape), np.uint8)
    batch[: len(images)] = images
    return batch


def _fetch(
    result: Any, truths: list[Truth], ids: list[int]
) -> tuple[np.ndarray, list[Truth], list[int]]:
    return np.asarray(result)[: len(ids)], truths, ids
