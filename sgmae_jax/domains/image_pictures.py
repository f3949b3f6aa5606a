"""Pictures of a training batch: what was hidden or asked, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from sgmae_jax.analysis.pictures import reconstruction_sheet
from sgmae_jax.analysis.segments import segments_sheet
from sgmae_jax.config import pair
from sgmae_jax.methods.base import Batch, Method, Picture
from sgmae_jax.processes import fetch

_ROWS = 8


def artists(config, method: Method) -> dict[str, Callable[..., np.ndarray]]:
    """Those who draw what the method can show, by the name of their pictures.

    Each is called with (params, batch, root key, step, phase) and draws the first
    images of the batch as a sheet, u8[height, width, 3].
    """
    found: dict[str, Callable[..., np.ndarray]] = {}
    if method.picture:
        look = jax.jit(method.picture, static_argnums=4)
        found["reconstruction"] = lambda params, batch, *rest: draw(
            config, method, look(params, batch, *rest), batch
        )
    if method.segments:
        tell = jax.jit(method.segments)
        found["segments"] = lambda params, batch, *rest: _draw_segments(
            batch, tell(params, batch["image"])
        )
    return found


def draw(config, method: Method, picture: Picture, batch: Batch) -> np.ndarray:
    """The first images of a batch as a sheet, u8[height, width, 3].

    Args:
        config: of the run.
        method: says in what units it predicts.
        picture: what the method shows of the batch.
        batch: the images it was made from.
    """
    whole = {"images": batch["image"], **picture._asdict()}
    first = fetch(jax.tree.map(lambda rows: rows[:_ROWS], whole))
    return reconstruction_sheet(
        first["images"],
        first["hidden"],
        first["prediction"],
        patch_size=pair(config.model.patch_size),
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        norm_pix=method.norm_pix,
    )


def _draw_segments(batch: Batch, predicted: jax.Array) -> np.ndarray:
    whole = batch["image"], batch["segments"], predicted
    return segments_sheet(*fetch([rows[:_ROWS] for rows in whole]))
