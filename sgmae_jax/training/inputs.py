"""The sources and loaders that a config's `data` section describes."""

from __future__ import annotations

import os

import jax

from sgmae_jax import domains
from sgmae_jax.data import Batch, Items, Loader, slice_source
from sgmae_jax.methods.base import Run, Stream


def stream_source(config, source: Items, name: str, stream: Stream) -> Items:
    """The share of a source that a stream is made of, along a fixed shuffled order.

    Raises:
        ConfigError: the stream needs what the source has not.
        DataError: the share is empty.
    """
    domains.of_config(config).check_stream(source, name, stream)
    if (stream.low, stream.high) == (0.0, 1.0):
        return source
    first, last = (round(end * len(source)) for end in (stream.low, stream.high))
    share = f"{name} [{stream.low:.0%}:{stream.high:.0%}]"
    return slice_source(source, str(first), str(last), name=share)


def make_loader(config, run: Run, source: Items, stream: Stream) -> Loader:
    """The training loader of a config over the source of a stream."""
    return Loader(
        source,
        domains.of_config(config).make_rows(config, run, stream),
        batch_size=config.data.batch_size,
        seed=config.seed,
        max_bad_fraction=config.data.max_bad_fraction,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads or _threads(config.data.in_memory),
        prefetch=config.data.prefetch,
        timeout=config.data.timeout,
    )


def left_out(source: Items, most: int = 20) -> list[str]:
    """Lines on what a source could not use and has left out, the first ones by name."""
    skipped = list(getattr(source, "skipped", ()))
    lines = [f"left out: {one}" for one in skipped[:most]]
    if len(skipped) > most:
        lines.append(f"left out: {len(skipped) - most} more")
    return lines


def held_out_batch(config, run: Run, source: Items, count: int, divisor: int) -> Batch:
    """A fixed batch of unvaried items: at most `count`, a multiple of `divisor`."""
    rows = max(min(count, len(source)) // divisor, 1) * divisor
    loader = Loader(
        source,
        domains.of_config(config).make_rows(config, run, None),
        batch_size=rows,
        seed=config.seed,
        varied=False,
        max_bad_fraction=1.0,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return loader.batch_at(0)


def _threads(in_memory: bool) -> int:
    """Decoding scales with the cores; small decoded images only contend for the GIL."""
    return min(2, os.cpu_count() or 1) if in_memory else os.cpu_count() or 1
