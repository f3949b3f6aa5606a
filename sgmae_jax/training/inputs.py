"""The sources and loaders that a config's `data` section describes."""

from __future__ import annotations

import jax

from sgmae_jax.config import pair
from sgmae_jax.data import AugmentConfig, Loader, Source, open_source


def open_config_source(config, split: str) -> Source:
    """The data source of a config, at a split of it."""
    return open_source(
        config.data.source,
        path=config.data.path,
        split=split,
        seed=config.seed,
        channels=config.data.channels,
        image_size=pair(config.data.image_size),
        in_memory=config.data.in_memory,
    )


def make_loader(config, source: Source, stream: str) -> Loader:
    """The training loader of a config over a source."""
    return Loader(
        source,
        batch_size=config.data.batch_size,
        image_size=pair(config.data.image_size),
        seed=config.seed,
        stream=stream,
        augment=AugmentConfig(
            scale=tuple(config.data.crop_scale),
            ratio=tuple(config.data.crop_ratio),
            flip=config.data.flip,
        ),
        max_bad_fraction=config.data.max_bad_fraction,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        prefetch=config.data.prefetch,
    )
