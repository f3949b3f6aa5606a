"""What every method on images shares: its autoencoder, its mask, its features."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, UInt8

from sgmae_jax.config import grid_of, pair
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
from sgmae_jax.models import Autoencoder, Decoder, Encoder
from sgmae_jax.models.macs import autoencoder_macs, train_flops
from sgmae_jax.models.presets import encoder_size


def make_autoencoder(config) -> Autoencoder:
    """The autoencoder that a config's `model` and `data` sections describe."""
    part = config.model
    size = encoder_size(part.preset, part.width, part.depth, part.heads)
    patch_size = pair(part.patch_size)
    shared = {
        "grid": grid_of(config),
        "mlp_ratio": part.mlp_ratio,
        "positions": part.positions,
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
        out_values=patch_values,
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
        keys = example_keys(key, batch["epoch"], batch["id"], "mask")
        return self._fn(keys, context, ratio=ratio, **self._options)


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
        encoded = model.encode(params[part], images)
        return encoded.cls if pool == "cls" else encoded.patches.mean(1)

    return features


def training_flops(model: Autoencoder, ratio: Any) -> float:
    """FLOPs of one masked training step for one image, at a (static) mask ratio."""
    height, width = model.grid
    encoder, decoder = model.encoder, model.decoder
    macs = autoencoder_macs(
        tokens=height * width,
        kept=num_keep(height * width, ratio),
        patch_values=encoder.patch_values,
        width=encoder.width,
        depth=encoder.depth,
        decoder_width=decoder.width,
        decoder_depth=decoder.depth,
        mlp_ratio=encoder.mlp_ratio,
    )
    return train_flops(macs)
