"""What fields of a config must agree on: sizes, lengths, and what a method asks for."""

from __future__ import annotations

import ml_collections

from sgmae_jax.config import ConfigError, grid_of, near, pair


def check_agreement(config: ml_collections.ConfigDict) -> None:
    """Checks the fields that must agree with each other; each alone is as it may be.

    Raises:
        ConfigError: the first thing that is wrong.
    """

    def need(good: bool, message: str) -> None:
        if not good:
            raise ConfigError(message)

    from sgmae_jax.models.presets import PRESETS, encoder_size

    several = isinstance(config.eval.neighbours, tuple | list)
    chooses = {
        "neighbours": several and len(config.eval.neighbours) > 1,
        "choose_best": config.eval.choose_best,
    }
    for key, choice in chooses.items():
        need(
            not choice or config.eval.validation_split is not None,
            f"config.eval.{key} = {config.eval[key]}: must go with an "
            "eval.validation_split to choose on",
        )
    if config.task != "pretrain":
        return  # model, method and mask come from the checkpoint
    need(
        (config.steps is None) != (config.epochs is None),
        f"config.steps = {config.steps}, config.epochs = {config.epochs}: "
        "set exactly one of the two",
    )
    need(
        config.data.source is not None,
        "config.data.source = None: must be named to train",
    )
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
        config.data.batch_size % config.optim.accumulate == 0,
        f"config.data.batch_size = {config.data.batch_size}: must be a multiple of "
        f"optim.accumulate = {config.optim.accumulate}",
    )
    need(
        config.data.source not in ("folder", "pairs") or bool(config.data.path),
        "config.data.path = '': must name the folder, zip or tar of data.source",
    )
    need(
        not (config.model.attention == "cudnn" and config.model.dtype == "float32"),
        "config.model.attention = 'cudnn': must go with model.dtype = 'bfloat16'",
    )
    peak = config.optim.base_lr * config.data.batch_size / 256
    need(
        config.optim.min_lr <= peak,
        f"config.optim.min_lr = {config.optim.min_lr:g}: must be at most the peak, "
        f"base_lr * batch_size / 256 = {peak:g}",
    )
    if config.epochs is not None:
        need(
            config.optim.warmup_epochs < config.epochs,
            f"config.optim.warmup_epochs = {config.optim.warmup_epochs:g}: must be "
            f"less than epochs = {config.epochs}",
        )
    from sgmae_jax import methods

    check_method = getattr(methods.load(config.method.name), "check", None)
    if check_method is not None:
        check_method(config)
    from sgmae_jax.masking import MaskError, load_mask_fn

    try:
        load_mask_fn(config.mask.fn)
    except MaskError as error:
        raise ConfigError(f"config.mask.fn = {config.mask.fn!r}: {error}") from None
