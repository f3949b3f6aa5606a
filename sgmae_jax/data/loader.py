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
from typing import Any

import numpy as np

from sgmae_jax.data.errors import BadImage, DataError, Stalled, TooManyBad
from sgmae_jax.data.rows import Row, Rows
from sgmae_jax.data.source import Items

_ORDER, _AUGMENT = zlib.crc32(b"order"), zlib.crc32(b"augment")
NAMED = 20

# One process' rows of a batch: what `Rows` makes, and beside it id i32[B], index into
# the source, and epoch i32[B], the pass over the source that a row belongs to, from 0.
Batch = dict[str, np.ndarray]
# How the item of an id is shown.
_Show = Callable[[int, Any], Row]


def steps_in(source: Items, batch_size: int, unit: str) -> int:
    """Batches in one pass over a source; what is left over at its end is dropped.

    Args:
        source: where items come from.
        batch_size: rows of the global batch.
        unit: what an item is called, in the plural.

    Raises:
        DataError: fewer items than a batch has rows.
    """
    if not 1 <= batch_size <= len(source):
        raise DataError(
            f"batch_size {batch_size} does not fit {source.name}, which has "
            f"{len(source)} {unit}"
        )
    return len(source) // batch_size


@dataclass(frozen=True)
class BadLog:
    """The bad items met so far: how many, and the first ones as "name: reason"."""

    count: int
    names: tuple[str, ...]


class Loader:
    """Makes the batches of a run.

    An epoch is a permutation of the source, cut into global batches; what is left
    over at its end is dropped. A process gets one contiguous block of each global
    batch. A bad item is replaced by the next good one (id + 1, + 2, …, from the end
    back to 0), and the batch gives the id of the item that is shown.

    Args:
        source: where items come from.
        rows: how they become rows of a batch.
        batch_size: rows of the global batch, a multiple of `process_count`.
        seed: >= 0; the root of order and of all chance in the rows.
        varied: rows to train on; otherwise as held-out items are shown.
        max_bad_fraction: share of the source's items that may be bad, 0 to 1.
        process_index: which block is this process', 0 <= index < process_count.
        process_count: how many processes share the global batch.
        threads: threads that read, >= 1.
        prefetch: batches made ahead, >= 1.
        timeout: seconds that `iterate` and `sweep` wait for one batch, > 0.

    Attributes:
        steps_per_epoch: batches in an epoch.
        wait_seconds: time that consumers of `iterate` have waited for batches.

    Raises:
        DataError: a value out of its range, or fewer items than a batch has rows.
    """

    def __init__(
        self,
        source: Items,
        rows: Rows,
        *,
        batch_size: int,
        seed: int,
        varied: bool = True,
        max_bad_fraction: float = 0.001,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 2,
        prefetch: int = 2,
        timeout: float = 300.0,
    ):
        if not 0 <= process_index < process_count or batch_size % process_count:
            raise DataError(
                f"batch_size {batch_size} cannot be split over {process_count} "
                f"processes, of which this is number {process_index}"
            )
        if min(threads, prefetch, seed + 1) < 1:
            raise DataError(
                f"threads {threads} and prefetch {prefetch} must be at least 1, seed "
                f"{seed} at least 0"
            )
        self.steps_per_epoch = steps_in(source, batch_size, rows.unit)
        self.wait_seconds = 0.0
        self._source = source
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._varied = varied
        self._max_bad = max_bad_fraction * len(source)
        block = batch_size // process_count
        self._block = slice(process_index * block, (process_index + 1) * block)
        self._threads = threads
        self._prefetch = prefetch
        self._timeout = timeout
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
        epoch, ids, show = self._drawn(step)
        return self._join(epoch, self._make(ids, show))

    def iterate(self, start_step: int = 0) -> Generator[tuple[int, Batch], None, None]:
        """Yields (step, batch) from a step on, without end, made ahead by threads.

        Closing the iterator (or leaving it to the garbage collector) stops the threads.

        Raises:
            TooManyBad: as `batch_at`.
            Stalled: a batch took longer than `timeout`. Its thread may hang in a read
                for ever, and Python waits for it at exit unless the process is ended.
        """
        jobs = map(self._drawn, itertools.count(start_step))
        with contextlib.closing(self._ahead(jobs)) as batches:
            yield from enumerate(batches, start_step)

    def sweep(self) -> Generator[Batch, None, None]:
        """Yields every item once, whole, in order of id.

        The last batch is filled up from the start of the source; `epoch` is 0. Blocks,
        threads, bad items and closing are as in `iterate`.

        Raises:
            TooManyBad, Stalled: as `iterate`.
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
        ahead: collections.deque[
            tuple[int, list[concurrent.futures.Future[list[Row]]]]
        ] = collections.deque()

        def submit(jobs: Iterator[tuple[int, np.ndarray, _Show]]) -> None:
            for epoch, ids, show in jobs:
                # Parts rather than rows: a 32-pixel image costs less than a future.
                parts = np.array_split(ids, min(self._threads, len(ids)))
                made = [pool.submit(self._make, part, show) for part in parts]
                ahead.append((epoch, made))

        patience = self._timeout
        try:
            submit(itertools.islice(jobs, self._prefetch))
            while ahead:
                epoch, futures = ahead[0]
                start = time.perf_counter()
                if concurrent.futures.wait(futures, patience).not_done:
                    patience = 0.0
                    raise Stalled(
                        f"no batch of {self._source.name} in {self._timeout:g} s "
                        "(config.data.timeout): a read hangs or is far too slow"
                    )
                parts = [future.result() for future in futures]
                self.wait_seconds += time.perf_counter() - start
                ahead.popleft()
                submit(itertools.islice(jobs, 1))
                yield self._join(epoch, list(itertools.chain(*parts)))
        finally:
            running = [one for _, made in ahead for one in made if not one.cancel()]
            hanging = concurrent.futures.wait(running, patience).not_done
            pool.shutdown(wait=not hanging, cancel_futures=True)

    def _permutation(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, epoch, _ORDER])
        return rng.permutation(len(self._source))

    def _drawn(self, step: int) -> tuple[int, np.ndarray, _Show]:
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self._batch_size
        ids = self._order(epoch)[first : first + self._batch_size][self._block]
        return epoch, ids, functools.partial(self._shape, epoch)

    def _in_order(self, first: int) -> np.ndarray:
        """This process' ids of the batch that starts at an id, wrapping round."""
        ids = np.arange(first, first + self._batch_size)[self._block]
        return ids % len(self._source)

    def _make(self, ids: np.ndarray, show: _Show) -> list[Row]:
        return [self._row(int(index), show) for index in ids]

    def _join(self, epoch: int, rows: list[Row]) -> Batch:
        ids = [row.pop("id") for row in rows]
        return {
            **self._rows.join(rows),
            "id": np.array(ids, np.int32),
            "epoch": np.full(len(ids), epoch, np.int32),
        }

    def _row(self, wanted: int, show: _Show) -> Row:
        """Returns the row of an item or of its replacement, with its id."""
        count = len(self._source)
        for index in itertools.chain(range(wanted, count), range(wanted)):
            if index not in self._bad:
                try:
                    return {**show(index, self._source[index]), "id": index}
                except BadImage as bad:
                    self._note(index, bad)
                # A reader that calls sys.exit would else end the program as if done.
                except (Exception, SystemExit) as error:
                    where = f"example {index} of {self._source.name}"
                    raise RuntimeError(f"{where}: {error!r}") from error
            self.check_share(self.bad.count)
        unit = self._rows.unit
        raise TooManyBad(f"not one of {self._source.name}'s {count} {unit} is good")

    def _shape(self, epoch: int, index: int, item: Any) -> Row:
        if not self._varied:
            return self._rows.plain(item)
        rng = np.random.default_rng([self._seed, epoch, _AUGMENT, index])
        return self._rows.train(item, rng)

    def _whole(self, index: int, item: Any) -> Row:
        del index
        return self._rows.whole(item)

    def _note(self, index: int, bad: BadImage) -> None:
        with self._lock:
            self._bad.setdefault(index, f"{bad.name}: {bad.reason}")

    def check_share(self, count: int) -> None:
        """Checks how many items are bad: here, or in all processes of a job.

        Raises:
            TooManyBad: their share has passed `max_bad_fraction`.
        """
        if count > self._max_bad:
            raise TooManyBad(
                f"{count} of {len(self._source)} {self._rows.unit} of "
                f"{self._source.name} are bad, more than the {self._max_bad:g} "
                f"allowed: {'; '.join(self.bad.names)}"
            )


def plain_batches(
    source: Items, rows: Rows, batch_size: int
) -> Iterator[tuple[Batch, int]]:
    """Yields (batch, count) of every good item once, in order, as held out.

    Every batch has `batch_size` rows, so that what reads them compiles once; behind the
    first `count` the last one is repeated.

    Args:
        source: where items come from.
        rows: how they become rows of a batch.
        batch_size: rows of a batch, >= 1.
    """
    for start in range(0, len(source), batch_size):
        made: list[Row] = []
        ids: list[int] = []
        for index in range(start, min(start + batch_size, len(source))):
            with contextlib.suppress(BadImage):
                made.append(rows.plain(source[index]))
                ids.append(index)
        if made:
            missing = batch_size - len(made)
            batch = rows.join(made + made[-1:] * missing)
            batch["id"] = np.array(ids + ids[-1:] * missing, np.int32)
            batch["epoch"] = np.zeros(batch_size, np.int32)
            yield batch, len(ids)
