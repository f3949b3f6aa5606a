"""Images: sources, batches of one size, kNN, probes and heads, pictures of patches."""

from __future__ import annotations

from typing import Any

from sgmae_jax.config import ConfigError, grid_of, near, pair
from sgmae_jax.data import AugmentConfig, ImageRows, RandAugment, Source
from sgmae_jax.data import open_source as open_images
from sgmae_jax.masking import MaskError, check_mask_fn, load_mask_fn
from sgmae_jax.methods.base import Method, Run, Stream
from sgmae_jax.models.presets import PRESETS, encoder_size

UNIT = "image"
SHORT = "img"


def check(config) -> None:
    """What the fields of a model of images must agree on.

    Raises:
        ConfigError: the first thing that is wrong.
    """

    def need(good: bool, message: str) -> None:
        if not good:
            raise ConfigError(message)

    preset = config.model.preset
    need(
        not preset or preset in PRESETS,
        f"config.model.preset = {preset!r}: must be empty or one of "
        f"{', '.join(PRESETS)}{near(preset, PRESETS)}",
    )
    for part in ("width", "depth", "heads"):
        need(
            bool(preset) or config.model[part] is not None,
            f"config.model.{part} = None: must be set when model.preset is empty",
        )
    for axis, side, patch in zip(
        ("height", "width"),
        pair(config.data.image_size),
        pair(config.model.patch_size),
        strict=True,
    ):
        need(
            side % patch == 0,
            f"config.data.image_size = {config.data.image_size}: its {axis} must be a "
            f"multiple of model.patch_size = {config.model.patch_size}",
        )
    size = encoder_size(
        preset, config.model.width, config.model.depth, config.model.heads
    )
    decoder = config.model.decoder_width, config.model.decoder_heads
    for key, heads_key, (total, parts) in (
        ("model.width", "model.heads", (size.width, size.heads)),
        ("model.decoder_width", "model.decoder_heads", decoder),
    ):
        need(
            total % parts == 0,
            f"config.{key} = {total}: must be a multiple of {heads_key} = {parts}",
        )
        # Two axes of sines and cosines share the width.
        need(total % 4 == 0, f"config.{key} = {total}: must be a multiple of 4")
    grid = grid_of(config)
    tokens = grid[0] * grid[1]
    for key in ("ratio", "ratio_end"):
        ratio = config.mask[key]
        kept = tokens if ratio is None else int(tokens * (1 - ratio))
        need(
            ratio is None or 1 <= kept < tokens,
            f"config.mask.{key} = {ratio}: must keep and hide at least one of the "
            f"{grid[0]}x{grid[1]} = {tokens} tokens, and keeps {kept}",
        )
    for key in ("mean", "std"):
        need(
            len(config.data[key]) == config.data.channels,
            f"config.data.{key} has {len(config.data[key])} values: must be one a "
            f"channel, data.channels = {config.data.channels}",
        )
    need(
        config.data.source not in ("folder", "pairs") or bool(config.data.path),
        "config.data.path = '': must name the folder, zip or tar of data.source",
    )
    try:
        load_mask_fn(config.mask.fn)
    except MaskError as error:
        raise ConfigError(f"config.mask.fn = {config.mask.fn!r}: {error}") from None


def check_mask(config) -> None:
    """Tries the mask function before anything is trained with it.

    Raises:
        ConfigError: it fails, or makes no mask.
    """
    try:
        check_mask_fn(
            load_mask_fn(config.mask.fn),
            grid=grid_of(config),
            ratio=config.mask.ratio,
            options=config.mask.options.to_dict(),
            image_shape=(*pair(config.data.image_size), config.data.channels),
        )
    except MaskError as error:
        raise ConfigError(f"config.mask.fn = {config.mask.fn!r}: {error}") from None


def open_source(config, split: str, *, in_memory: bool) -> Source:
    """The images of a config, at a split of them.

    Raises:
        DataError: they are not there.
    """
    return open_images(
        config.data.source,
        path=config.data.path,
        split=split,
        seed=config.seed,
        channels=config.data.channels,
        image_size=pair(config.data.image_size),
        in_memory=in_memory,
        pictures=True,
        cache=config.data.cache,
    )


def check_stream(source: Source, name: str, stream: Stream) -> None:
    """Labels and classes of pixels must be there where a stream asks for them.

    Raises:
        ConfigError: they are not.
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


def facts(config, source: Source) -> dict[str, Any]:
    """How many classes there are, of images and of pixels."""
    del config
    return {
        "classes": len(source.classes),
        "pixel_classes": len(source.pixel_classes),
        "facts": {},
    }


def make_rows(config, run: Run, stream: Stream | None) -> ImageRows:
    """Crops to train on, or centres of held-out images."""
    del run
    return ImageRows(
        image_size=pair(config.data.image_size),
        augment=AugmentConfig(
            scale=tuple(config.data.crop_scale),
            ratio=tuple(config.data.crop_ratio),
            flip=config.data.flip,
            clip=config.data.crop_clip,
            rand_augment=rand_augment_of(config),
        ),
        segments=stream is not None and stream.pixels,
        pairs=stream is not None and stream.pairs,
    )


# Scoring and drawing are slow to import, and checking a config needs neither.
def make_scorer(config, method: Method, run: Run, **given):
    """See sgmae_jax/domains/image_scores.py."""
    from sgmae_jax.domains.image_scores import Scorer

    return Scorer(config, method, run, **given)


def artists(config, method: Method):
    """See sgmae_jax/domains/image_pictures.py."""
    from sgmae_jax.domains import image_pictures

    return image_pictures.artists(config, method)


def title(config) -> str:
    """The grid of tokens."""
    height, width = grid_of(config)
    return f"grid {height}x{width}"


def rand_augment_of(config) -> RandAugment | None:
    """What comes in from outside of an image is the mean pixel."""
    if config.data.rand_augment is None:
        return None
    magnitude, std = config.data.rand_augment
    fill = (min(max(round(255 * mean), 0), 255) for mean in config.data.mean)
    return RandAugment(magnitude, std, tuple(fill))
