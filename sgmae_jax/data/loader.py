"""Batches in a fixed shuffled order, made ahead by threads.

What a batch holds follows from (seed, step) alone: not from threads, processes or
where a run was resumed.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from sgmae_jax.data.augment import (
    AugmentConfig,
    Shown,
    eval_image,
    shown_segments,
    train_image,
    whole_image,
)
from sgmae_jax.data.errors import BadImage, DataError, TooManyBad
from sgmae_jax.data.source import Source

_ORDER, _AUGMENT = zlib.crc32(b"order"), zlib.crc32(b"augment")
NAMED = 20


class Batch(TypedDict):
    """One process' rows of a batch.

    Attributes:
        image: pixels, 0 to 255.
        label: class, -1 where unknown.
        id: index into the source.
        epoch: the pass over the source that the row belongs to, from 0.
        view: where in the source image the shown one lies, see `Shown`.
        segments: class of every pixel shown; only where the loader was asked for it.
    """

    image: UInt8[np.ndarray, "B H W C"]
    label: Int32[np.ndarray, " B"]
    id: Int32[np.ndarray, " B"]
    epoch: Int32[np.ndarray, " B"]
    view: Float32[np.ndarray, "B 2 2"]
    segments: NotRequired[UInt8[np.ndarray, "B H W"]]


# How the image of an id is shown.
_Show = Callable[[int, np.ndarray], Shown]


class _Row(NamedTuple):
    """One row of a batch; no more of its example is kept."""

    shown: Shown
    label: int
    id: int
    segments: UInt8[np.ndarray, "H W"] | None


@dataclass(frozen=True)
class BadLog:
    """The bad images met so far: how many, and the first ones as "name: reason"."""

    count: int
    names: tuple[str, ...]


class Loader:
    """Makes the batches of a run.

    An epoch is a permutation of the source, cut into global batches; what is left
    over at its end is dropped. A process gets one contiguous block of each global
    batch. A bad image is replaced by the next good one (id + 1, + 2, …, from the end
    back to 0), and the batch gives the id of the image that is shown.

    Args:
        source: where examples come from.
        batch_size: rows of the global batch, a multiple of `process_count`.
        image_size: (h, w) in pixels.
        seed: >= 0; the root of order and augmentation.
        augment: how to vary the images; None shows the centre, unvaried.
        segments: whether batches hold the classes of the pixels shown; the source must
            have `pixel_classes`.
        max_bad_fraction: share of the source's images that may be bad, 0 to 1.
        process_index: which block is this process', 0 <= index < process_count.
        process_count: how many processes share the global batch.
        threads: threads that decode, >= 1.
        prefetch: batches made ahead, >= 1.

    Attributes:
        steps_per_epoch: batches in an epoch.
        wait_seconds: time that consumers of `iterate` have waited for batches.

    Raises:
        DataError: a value out of its range, or fewer images than a batch has rows.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        image_size: tuple[int, int],
        seed: int,
        augment: AugmentConfig | None,
        segments: bool = False,
        max_bad_fraction: float = 0.001,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 2,
        prefetch: int = 2,
    ):
        if not 0 <= process_index < process_count or batch_size % process_count:
            raise DataError(
                f"batch_size {batch_size} cannot be split over {process_count} "
                f"processes, of which this is number {process_index}"
            )
        if not 1 <= batch_size <= len(source):
            raise DataError(
                f"batch_size {batch_size} does not fit {source.name}, which has "
                f"{len(source)} images"
            )
        if min(threads, prefetch, seed + 1, *image_size) < 1:
            raise DataError(
                f"threads {threads}, prefetch {prefetch} and image_size {image_size} "
                f"must be at least 1, seed {seed} at least 0"
            )
        self.steps_per_epoch = len(source) // batch_size
        self.wait_seconds = 0.0
        self._source = source
        self._batch_size = batch_size
        self._image_size = image_size
        self._seed = seed
        self._augment = augment
        self._segments = segments
        self._max_bad = max_bad_fraction * len(source)
        rows = batch_size // process_count
        self._block = slice(process_index * rows, (process_index + 1) * rows)
        self._threads = threads
        self._prefetch = prefetch
        self._bad: dict[int, str] = {}
        self._lock = threading.Lock()
        # Two epochs: around their border both are asked for.
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    @property
    def bad(self) -> BadLog:
        with self._lock:
            first = tuple(itertools.islice(self._bad.values(), NAMED))
            return BadLog(len(self._bad), first)

    def batch_at(self, step: int) -> Batch:
        """Returns this process' rows of the global batch of a step, from 0.

        Raises:
            TooManyBad: the share of bad images has passed `max_bad_fraction`.
        """
        return self._make(*self._rows(step))

    def iterate(self, start_step: int = 0) -> Generator[tuple[int, Batch], None, None]:
        """Yields (step, batch) from a step on, without end, made ahead by threads.

        Closing the iterator (or leaving it to the garbage collector) stops the threads.

        Raises:
            TooManyBad: as `batch_at`.
        """
        jobs = map(self._rows, itertools.count(start_step))
        with contextlib.closing(self._ahead(jobs)) as batches:
            yield from enumerate(batches, start_step)

    def sweep(self) -> Generator[Batch, None, None]:
        """Yields every example once, whole and stretched to the size, in order of id.

        The last batch is filled up from the start of the source; `epoch` is 0. Blocks,
        threads, bad images and closing are as in `iterate`.

        Raises:
            TooManyBad: as `batch_at`.
        """
        starts = range(0, len(self._source), self._batch_size)
        jobs = ((0, self._in_order(start), self._whole) for start in starts)
        with contextlib.closing(self._ahead(jobs)) as batches:
            yield from batches

    def _ahead(
        self, jobs: Iterator[tuple[int, np.ndarray, _Show]]
    ) -> Generator[Batch, None, None]:
        """Makes the batches of (epoch, ids, show), a few ahead, in threads."""
        pool = concurrent.futures.ThreadPoolExecutor(
            self._threads, thread_name_prefix="loader"
        )
        ahead: collections.deque[list[concurrent.futures.Future[Batch]]] = (
            collections.deque()
        )

        def submit(jobs: Iterator[tuple[int, np.ndarray, _Show]]) -> None:
            for epoch, ids, show in jobs:
                # Parts rather than rows: a 32-pixel image costs less than a future.
                parts = np.array_split(ids, min(self._threads, len(ids)))
                ahead.append([pool.submit(self._make, epoch, p, show) for p in parts])

        try:
            submit(itertools.islice(jobs, self._prefetch))
            while ahead:
                futures = ahead.popleft()
                start = time.perf_counter()
                parts = [future.result() for future in futures]
                self.wait_seconds += time.perf_counter() - start
                submit(itertools.islice(jobs, 1))
                yield _join(parts)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _permutation(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, epoch, _ORDER])
        return rng.permutation(len(self._source))

    def _rows(self, step: int) -> tuple[int, np.ndarray, _Show]:
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self._batch_size
        ids = self._order(epoch)[first : first + self._batch_size][self._block]
        return epoch, ids, functools.partial(self._shape, epoch)

    def _in_order(self, first: int) -> np.ndarray:
        """This process' ids of the batch that starts at an id, wrapping round."""
        ids = np.arange(first, first + self._batch_size)[self._block]
        return ids % len(self._source)

    def _make(self, epoch: int, ids: np.ndarray, show: _Show) -> Batch:
        rows = [self._row(int(i), show) for i in ids]
        batch: Batch = {
            "image": np.stack([row.shown.image for row in rows]),
            "label": np.array([row.label for row in rows], np.int32),
            "id": np.array([row.id for row in rows], np.int32),
            "epoch": np.full(len(ids), epoch, np.int32),
            "view": np.stack([row.shown.view for row in rows]),
        }
        if segments := [row.segments for row in rows if row.segments is not None]:
            batch["segments"] = np.stack(segments)
        return batch

    def _row(self, wanted: int, show: _Show) -> _Row:
        """Returns the row of an example or of its replacement."""
        count = len(self._source)
        for index in itertools.chain(range(wanted, count), range(wanted)):
            if index not in self._bad:
                try:
                    example = self._source[index]
                    shown, segments = show(index, example["image"]), None
                    if self._segments:
                        segments = shown_segments(
                            example["segments"], shown.view, self._image_size
                        )
                    return _Row(shown, example["label"], index, segments)
                except BadImage as bad:
                    self._note(index, bad)
                except Exception as error:
                    where = f"example {index} of {self._source.name}"
                    raise RuntimeError(f"{where}: {error!r}") from error
            self._check_share()
        raise TooManyBad(f"not one of {self._source.name}'s {count} images is good")

    def _shape(self, epoch: int, index: int, image: np.ndarray) -> Shown:
        if self._augment is None:
            return eval_image(image, self._image_size)
        rng = np.random.default_rng([self._seed, epoch, _AUGMENT, index])
        return train_image(rng, image, self._image_size, self._augment)

    def _whole(self, index: int, image: np.ndarray) -> Shown:
        del index
        return whole_image(image, self._image_size)

    def _note(self, index: int, bad: BadImage) -> None:
        with self._lock:
            self._bad.setdefault(index, f"{bad.name}: {bad.reason}")

    def _check_share(self) -> None:
        bad = self.bad
        if bad.count > self._max_bad:
            raise TooManyBad(
                f"{bad.count} of {len(self._source)} images of {self._source.name} are "
                f"bad, more than the {self._max_bad:g} allowed: {'; '.join(bad.names)}"
            )


def _join(parts: list[Batch]) -> Batch:
    """Puts the rows of several batches one below the other."""
    if len(parts) == 1:
        return parts[0]
    joined: Batch = {
        "image": np.concatenate([part["image"] for part in parts]),
        "label": np.concatenate([part["label"] for part in parts]),
        "id": np.concatenate([part["id"] for part in parts]),
        "epoch": np.concatenate([part["epoch"] for part in parts]),
        "view": np.concatenate([part["view"] for part in parts]),
    }
    if "segments" in parts[0]:
        joined["segments"] = np.concatenate([part["segments"] for part in parts])
    return joined
