"""What a method's own masks hide of the same images, from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from sgmae_jax.analysis.pictures import enlarged, greyed, sheet, token_pixels
from sgmae_jax.methods.base import Marks, Method, Params

_CAPTION = (
    "What the method itself hides (grey) of these images after so many steps; "
    "step 0: before training. Random draws are the same in every column, so masks "
    "differ by what was learned, and by the mask ratio and the guidance of that step."
)


def own_masks(
    method: Method, images: UInt8[np.ndarray, "P H W C"], *, seed: int, marks: Marks
) -> Callable[[Params, int], Float[np.ndarray, "P N"]] | None:
    """A function (all params, steps done) -> 1 where a token would be hidden.

    Args:
        method: the run's.
        images: P of them; training need not have seen them.
        seed: the run's.
        marks: of the newest checkpoint, see `Method.phase`.

    Returns:
        The function; None where the method has no pictures, or P is 0.
    """
    picture, sweep = method.picture, method.sweep
    count = len(images)
    if picture is None or not count:
        return None
    place = np.arange(count, dtype=np.int32)
    nothing = np.zeros(count, np.int32)
    batch = {
        "image": images,
        "label": nothing,
        # What a bank keeps is of training's images: a sweep over these ones takes the
        # place of some, and without one they get ids that no bank has.
        "id": place if sweep else -1 - place,
        "epoch": nothing,
        "view": np.tile(np.array([0, 1], np.float32), (count, 2, 1)),
    }
    key = jax.random.key(seed)

    def hidden(params: Params, batch: Any, key: Any, step: Any, phase: Any) -> Any:
        if sweep:
            params = sweep.absorb(params, batch, step, phase)
        return picture(params, batch, key, step, phase).hidden

    hide = jax.jit(hidden, static_argnums=4)

    def at(params: Params, step: int) -> Float[np.ndarray, "P N"]:
        phase = method.phase(max(step - 1, 0), marks)
        return np.asarray(hide(params, batch, key, step, phase))

    return at


def mask_sheet(
    images: UInt8[np.ndarray, "P H W C"],
    masks: Mapping[int, Float[np.ndarray, "P N"]],
    *,
    grid: tuple[int, int],
    patch_size: tuple[int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """A row an image: the image, then what is left of it at each step.

    Args:
        images: P of them, at least one.
        masks: by steps done, ascending; 1 where a token is hidden.
        grid: (h, w) in tokens.
        patch_size: (height, width) in pixels.
    """
    columns = [
        greyed(images, token_pixels(hidden > 0, grid, patch_size))
        for hidden in masks.values()
    ]
    titles = ["image", *(f"step {step}" for step in masks)]
    return sheet([*map(enlarged, [images, *columns])], titles, caption=_CAPTION)
