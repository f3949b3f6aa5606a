"""The picture of a training batch: what was hidden, and what was made of it."""

from __future__ import annotations

import jax
import numpy as np

from sgmae_jax.analysis.pictures import reconstruction_sheet
from sgmae_jax.config import pair
from sgmae_jax.methods.base import Batch, Method, Picture

_ROWS = 8


def draw(config, method: Method, picture: Picture, batch: Batch) -> np.ndarray:
    """The first images of a batch as a sheet, u8[height, width, 3].

    Args:
        config: of the run.
        method: says in what units it predicts.
        picture: what the method shows of the batch.
        batch: the images it was made from.
    """
    whole = {"images": batch["image"], **picture._asdict()}
    first = jax.device_get(jax.tree.map(lambda rows: rows[:_ROWS], whole))
    return reconstruction_sheet(
        first["images"],
        first["hidden"],
        first["prediction"],
        patch_size=pair(config.model.patch_size),
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        norm_pix=method.norm_pix,
    )
