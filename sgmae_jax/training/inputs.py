"""The sources and loaders that a config's `data` section describes."""

from __future__ import annotations

import os

import jax

from sgmae_jax.config import ConfigError, flatten, pair
from sgmae_jax.data import (
    AugmentConfig,
    Batch,
    Loader,
    RandAugment,
    Source,
    bounds,
    open_source,
    parse_split,
    slice_source,
)
from sgmae_jax.methods.base import Stream


def open_config_source(config, split: str, *, in_memory: bool) -> Source:
    """The data source of a config, at a split of it."""
    return open_source(
        config.data.source,
        path=config.data.path,
        split=split,
        seed=config.seed,
        channels=config.data.channels,
        image_size=pair(config.data.image_size),
        in_memory=in_memory,
    )


def check_apart(config, first: str, second: str) -> None:
    """Two splits of a config must not share images.

    Args:
        config: with a data source that is there.
        first: dotted name of a field that holds a split.
        second: of another one.

    Raises:
        ConfigError: they do.
    """
    splits = [flatten(config)[field] for field in (first, second)]
    names = [parse_split(split) for split in splits]
    if names[0] is None or names[1] is None or names[0][0] != names[1][0]:
        return
    length = len(open_config_source(config, names[0][0], in_memory=False))
    (low, high), (other_low, other_high) = (
        bounds(*name[1:], length) for name in names if name
    )
    if max(low, other_low) < min(high, other_high):
        raise ConfigError(
            f"config.{first} = {splits[0]!r}: must share no image with "
            f"{second} = {splits[1]!r}"
        )


def stream_source(source: Source, name: str, stream: Stream) -> Source:
    """The share of a source that a stream is made of, along a fixed shuffled order.

    Raises:
        ConfigError: the stream needs labels, or classes of pixels, that the source has
            not.
        DataError: the share is empty.
    """
    # A folder without class folders counts as one class, "unlabelled".
    if stream.labelled and len(source.classes) < 2:
        raise ConfigError(
            f"config.data.source: must have labels, which the batches {name!r} of this "
            f"method need; {source.name} has no classes to tell apart"
        )
    if stream.pixels and not source.pixel_classes:
        raise ConfigError(
            f"config.data.source: must have classes of pixels, which the batches "
            f"{name!r} of this method need; {source.name} has none"
        )
    if (stream.low, stream.high) == (0.0, 1.0):
        return source
    first, last = (round(end * len(source)) for end in (stream.low, stream.high))
    share = f"{name} [{stream.low:.0%}:{stream.high:.0%}]"
    return slice_source(source, str(first), str(last), name=share)


def make_loader(config, source: Source, stream: Stream) -> Loader:
    """The training loader of a config over the source of a stream."""
    return Loader(
        source,
        batch_size=config.data.batch_size,
        image_size=pair(config.data.image_size),
        seed=config.seed,
        augment=AugmentConfig(
            scale=tuple(config.data.crop_scale),
            ratio=tuple(config.data.crop_ratio),
            flip=config.data.flip,
            clip=config.data.crop_clip,
            rand_augment=_rand_augment(config),
        ),
        segments=stream.pixels,
        max_bad_fraction=config.data.max_bad_fraction,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads or _threads(config.data.in_memory),
        prefetch=config.data.prefetch,
    )


def held_out_batch(config, source: Source, count: int, divisor: int) -> Batch:
    """A fixed batch of unvaried images: at most `count`, a multiple of `divisor`."""
    rows = max(min(count, len(source)) // divisor, 1) * divisor
    loader = Loader(
        source,
        batch_size=rows,
        image_size=pair(config.data.image_size),
        seed=config.seed,
        augment=None,
        max_bad_fraction=1.0,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return loader.batch_at(0)


def _rand_augment(config) -> RandAugment | None:
    """What comes in from outside of an image is the mean pixel."""
    if config.data.rand_augment is None:
        return None
    magnitude, std = config.data.rand_augment
    fill = (min(max(round(255 * mean), 0), 255) for mean in config.data.mean)
    return RandAugment(magnitude, std, tuple(fill))


def _threads(in_memory: bool) -> int:
    """Decoding scales with the cores; small decoded images only contend for the GIL."""
    return min(2, os.cpu_count() or 1) if in_memory else os.cpu_count() or 1
