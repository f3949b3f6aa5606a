"""Masks of a network that an earlier run has learned, for any method and pipeline.

config.mask.fn = "sgmae_jax.methods.learned_masks:learned"
config.mask.options.run = "runs/mlo_mae"
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sgmae_jax.config import grid_of
from sgmae_jax.masking import Context, Mask, MaskError, num_keep, select
from sgmae_jax.methods.frozen import read_run
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.methods.patch_weights import make_masker


def learned(
    keys: Key[Array, " B"],
    context: Context,
    *,
    ratio: float,
    run: str,
    weighted: bool = True,
) -> Mask:
    """Hides the patches that a run's masking network is most willing to hide.

    The network is frozen, and so are the patch embedding and the positions it was
    trained on, which come from the run too. Nothing is random: an image that is shown
    alike is masked alike. The run's folder is read once a process, while tracing.

    Args:
        keys: not used.
        context: its images, standardised as those of the run were.
        ratio: share hidden.
        run: directory of a run of MLO-MAE.
        weighted: weigh the error of each hidden patch by its chance to be hidden, as
            that run did; otherwise all hidden ones count alike.

    Raises:
        MaskError: the folder has no such run, or it was made for another grid.
    """
    del keys
    if context.images is None:
        raise ValueError("learned masks need images: pass Context(..., images)")
    grid, logits_of = _network(run)
    if grid != context.grid:
        raise MaskError(f"run {run!r} has a grid of {grid} patches, not {context.grid}")
    logits = logits_of(context.images)
    mask = select(logits, num_keep(context.num_tokens, ratio))
    if weighted:
        mask = mask._replace(loss_weight=mask.hidden * jax.nn.sigmoid(logits))
    return mask


@functools.lru_cache(maxsize=4)
def _network(
    run: str,
) -> tuple[tuple[int, int], Callable[[Array], Float[Array, "B N"]]]:
    """The grid of a run, and its frozen masking network."""
    folder = Path(run)
    if not (folder / "checkpoints").is_dir():
        raise MaskError(f"run = {run!r} must be a run directory with checkpoints")
    # Read eagerly even where a mask function is being traced.
    with jax.ensure_compile_time_eval():
        config, _, params = read_run(folder)
    if "masker_hidden" not in config.method:
        raise MaskError(
            f"run = {run!r} is one of {config.method.name}, which has no masking "
            "network of this kind; take one of mlo_mae"
        )
    model, masker = make_autoencoder(config), make_masker(config.method)
    fixed = jax.device_get({name: params[name] for name in ("model", "masker")})

    def logits(images: Array) -> Float[Array, "B N"]:
        tokens = model.embed(fixed["model"], images)
        return jnp.asarray(masker.apply({"params": fixed["masker"]}, tokens))

    return grid_of(config), logits
