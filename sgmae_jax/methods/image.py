"""What every method on images shares: its autoencoder, its mask, its features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, UInt8

from sgmae_jax.config import ConfigError, grid_of, pair
from sgmae_jax.masking import (
    Context,
    Mask,
    bucket_at,
    example_keys,
    load_mask_fn,
    num_keep,
    ratio_buckets,
)
from sgmae_jax.methods.base import Batch, Marks, Run
from sgmae_jax.models import Autoencoder, Decoder, Encoded, Encoder
from sgmae_jax.models.macs import decoder_macs, encoder_macs, train_flops
from sgmae_jax.models.presets import encoder_size
from sgmae_jax.optimizer import make_adamw
from sgmae_jax.schema import FIELDS


def make_autoencoder(config, *, out_values: int | None = None) -> Autoencoder:
    """The autoencoder that a config's `model` and `data` sections describe.

    Args:
        config: of a run.
        out_values: what the decoder predicts of a token; None: its pixels.
    """
    part = config.model
    size = encoder_size(part.preset, part.width, part.depth, part.heads)
    patch_size = pair(part.patch_size)
    shared = {
        "grid": grid_of(config),
        "mlp_ratio": part.mlp_ratio,
        "positions": part.positions,
        "norm_eps": part.norm_eps,
        "dtype": part.dtype,
        "attention": part.attention,
        "unroll": part.unroll,
        "remat": part.remat,
    }
    patch_values = patch_size[0] * patch_size[1] * config.data.channels
    encoder = Encoder(
        patch_values=patch_values,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        **shared,
    )
    decoder = Decoder(
        width=part.decoder_width,
        depth=part.decoder_depth,
        heads=part.decoder_heads,
        out_values=out_values or patch_values,
        window=part.decoder_window,
        **shared,
    )
    return Autoencoder(
        encoder=encoder,
        decoder=decoder,
        patch_size=patch_size,
        channels=config.data.channels,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
    )


def adamw_of(
    config,
    run: Run,
    *,
    weight_decay: float | None = None,
    spared: Collection[str] = (),
) -> optax.GradientTransformation:
    """The configured optimizer, its schedule as long as the run.

    Args:
        config: its `optim` section, and the batch size that scales the rate.
        run: epochs and length of the schedule.
        weight_decay: instead of the config's; 0 makes it Adam.
        spared: names of leaves that do not decay, beside biases and scales.
    """
    optim = config.optim.copy_and_resolve_references()
    if weight_decay is not None:
        optim.weight_decay = weight_decay
    return make_adamw(
        optim,
        batch_size=config.data.batch_size,
        steps_per_epoch=run.steps_per_epoch,
        total_steps=run.total_steps,
        spared=spared,
    )


def cosine_adamw(config, rate: float, steps: int) -> optax.GradientTransformation:
    """The configured AdamW for a network with a rhythm and a rate of its own.

    Args:
        config: of the run.
        rate: at its first step; half a cosine leads to 0, without warm-up.
        steps: length of that, in steps of its own.
    """
    optim = config.optim.copy_and_resolve_references()
    optim.base_lr = rate * 256 / config.data.batch_size
    optim.min_lr, optim.warmup_epochs = 0.0, 0.0
    return make_adamw(
        optim,
        batch_size=config.data.batch_size,
        steps_per_epoch=1,
        total_steps=steps,
    )


def check_own_masks(config) -> None:
    """For methods that do not hide by the configured mask: it must not be set.

    Raises:
        ConfigError: it is, and would have no effect.
    """
    default = FIELDS["mask.fn"].default
    if config.mask.fn != default or config.mask.options.to_dict():
        raise ConfigError(
            f"config.mask.fn = {config.mask.fn!r}: must stay {default!r} without "
            f"options, method {config.method.name} makes its own masks or none"
        )


class Masking:
    """The configured mask generator, with its ratio schedule and its keys."""

    def __init__(self, config, run: Run):
        self._fn = load_mask_fn(config.mask.fn)
        self._options = config.mask.options.to_dict()
        self._total_steps = run.total_steps
        start, end = config.mask.ratio, config.mask.ratio_end
        self._ratios = (
            (start,) if end is None else ratio_buckets(start, end, config.mask.buckets)
        )

    def ratio_at(self, step: int, marks: Marks) -> float:
        """The ratio of a step (host integer): one of a few static buckets."""
        del marks
        return bucket_at(step, self._total_steps, self._ratios)

    def __call__(
        self,
        model: Autoencoder,
        params: Any,
        images: Float[Array, "B H W C"],
        batch: Batch,
        key: Array,
        step: Any,
        ratio: float,
        *,
        purpose: str = "mask",
    ) -> Mask:
        """Masks for a batch; features and attention are there, without gradient.

        Args:
            model: whose encoder offers features and attention.
            params: of that model.
            images: normalised.
            batch: for its ids and epochs, which with `key` decide the randomness.
            key: root key of the run.
            step: training step.
            ratio: share hidden, static.
            purpose: of the randomness; another gives other masks.
        """
        fixed = jax.lax.stop_gradient(params)

        @functools.cache  # features and attention of a layer come from one pass
        def look(layer: int):
            return model.layer(fixed, images, layer)

        context = Context(
            grid=model.grid,
            images=images,
            step=step,
            features=lambda layer: look(layer).features[:, 1:],
            attention=lambda layer: look(layer).attention,
        )
        keys = example_keys(key, batch["epoch"], batch["id"], purpose)
        return self._fn(keys, context, ratio=ratio, **self._options)


def pool_tokens(encoded: Encoded, pool: str) -> Float[Array, "B D"]:
    """One vector an image: the class token ("cls") or the mean patch token ("mean")."""
    return encoded.cls if pool == "cls" else encoded.patches.mean(1)


def pooled_features(
    model: Autoencoder, pool: str, part: str = "model"
) -> Callable[[Any, UInt8[Array, "B H W C"]], Float[Array, "B D"]]:
    """Frozen features of whole images: the class token or the mean patch token.

    Args:
        model: the autoencoder whose encoder is read.
        pool: "mean" or "cls".
        part: name of its sub-tree in params.

    Returns:
        (params, images u8[B,H,W,C]) -> f32[B,D]
    """

    def features(params, images):
        return pool_tokens(model.encode(params[part], images), pool)

    return features


def forward_macs(model: Autoencoder, ratio: Any) -> int:
    """Multiply-adds of one masked forward pass for one image, at a static ratio."""
    encoder, decoder = model.encoder, model.decoder
    tokens = encoder.tokens
    kept = num_keep(tokens, ratio)
    return encoder_macs(
        tokens=tokens,
        kept=kept,
        patch_values=encoder.patch_values,
        width=encoder.width,
        depth=encoder.depth,
        mlp_ratio=encoder.mlp_ratio,
    ) + decoder_macs(
        tokens=tokens,
        kept=kept,
        patch_values=decoder.out_values,
        encoder_width=encoder.width,
        width=decoder.width,
        depth=decoder.depth,
        mlp_ratio=decoder.mlp_ratio,
    )


def whole_macs(model: Autoencoder, depth: int) -> int:
    """Multiply-adds of an image's first `depth` encoder layers, nothing hidden."""
    encoder = model.encoder
    return encoder_macs(
        tokens=encoder.tokens,
        kept=encoder.tokens,
        patch_values=encoder.patch_values,
        width=encoder.width,
        depth=depth,
        mlp_ratio=encoder.mlp_ratio,
    )


def training_flops(model: Autoencoder, ratio: Any) -> float:
    """FLOPs of one masked training step for one image, at a (static) mask ratio."""
    return train_flops(forward_macs(model, ratio))
