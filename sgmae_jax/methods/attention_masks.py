"""Masks from a teacher's attention, for any method on images and pipeline.

config.mask.fn = "sgmae_jax.methods.attention_masks:teacher_attention"
config.mask.options.run = "runs/mae"
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Key

from sgmae_jax.masking import Context, Mask, MaskError, attention_mask
from sgmae_jax.methods.frozen import read_run
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.models import Autoencoder


def teacher_attention(
    keys: Key[Array, " B"], context: Context, *, ratio: float, run: str, **options: Any
) -> Mask:
    """`attention_mask` of a frozen encoder that an earlier run has trained.

    The run's folder is read once a process, while tracing.

    Args:
        keys: one an example.
        context: its images, standardised as those of the run were, and its step.
        ratio: share hidden.
        run: directory of a run on images with an encoder of blocks.
        **options: of `attention_mask`.

    Raises:
        MaskError: the folder has no such run, or it was made for another grid.
    """
    if context.images is None:
        raise ValueError("a teacher needs images: pass Context(..., images)")
    images = context.images
    model, attention = _teacher(run)
    if model.grid != context.grid:
        raise MaskError(
            f"run {run!r} has a grid of {model.grid} patches, not {context.grid}"
        )
    seen = Context(
        grid=context.grid,
        step=context.step,
        attention=lambda layer: attention(images, layer),
    )
    return attention_mask(keys, seen, ratio=ratio, **options)


@functools.lru_cache(maxsize=4)
def _teacher(run: str) -> tuple[Autoencoder, Callable[[Array, int], Array]]:
    """A run's frozen model, and (images, layer) -> attention maps."""
    folder = Path(run)
    if not (folder / "checkpoints").is_dir():
        raise MaskError(f"run = {run!r} must be a run directory with checkpoints")
    # Read eagerly even where a mask function is being traced.
    with jax.ensure_compile_time_eval():
        config, method, params = read_run(folder)
        encoder = jax.device_get(method.encoder(params))
    if "blocks" not in encoder or "cls_token" not in encoder:
        raise MaskError(
            f"run = {run!r} is one of {config.method.name}, whose encoder is no ViT"
        )
    model = make_autoencoder(config)
    return (
        model,
        lambda images, layer: (
            model.layer({"encoder": encoder}, images, layer).attention
        ),
    )
