"""Data from anywhere, in a fixed order, as batches."""

from sgmae_jax.data.augment import (
    AugmentConfig,
    Shown,
    eval_image,
    shown_segments,
    train_image,
    whole_image,
)
from sgmae_jax.data.errors import BadImage, DataError, TooManyBad
from sgmae_jax.data.images import decode_image
from sgmae_jax.data.loader import BadLog, Batch, Loader, plain_batches, steps_in
from sgmae_jax.data.opening import bounds, open_source, parse_split, slice_source
from sgmae_jax.data.randaugment import RandAugment
from sgmae_jax.data.rows import ImageRows, Row, Rows, stack
from sgmae_jax.data.source import (
    UNLABELLED_PIXEL,
    Example,
    InMemory,
    Items,
    Source,
    Subset,
)
from sgmae_jax.data.synthetic import Synthetic, SyntheticConfig

__all__ = [
    "UNLABELLED_PIXEL",
    "AugmentConfig",
    "BadImage",
    "BadLog",
    "Batch",
    "DataError",
    "Example",
    "ImageRows",
    "InMemory",
    "Items",
    "Loader",
    "RandAugment",
    "Row",
    "Rows",
    "Shown",
    "Source",
    "Subset",
    "Synthetic",
    "SyntheticConfig",
    "TooManyBad",
    "bounds",
    "decode_image",
    "eval_image",
    "open_source",
    "parse_split",
    "plain_batches",
    "shown_segments",
    "slice_source",
    "stack",
    "steps_in",
    "train_image",
    "whole_image",
]
