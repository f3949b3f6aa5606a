"""Pictures of what a masked autoencoder was shown and what it made of it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped, UInt8

from sgmae_jax.models import normalise_patches, patchify, unpatchify

_TITLES = ("input", "masked input", "reconstruction", "with visible patches")
_RAW = "Reconstruction: predicted pixels. Last column: visible patches pasted over it."
_NORMALISED = (
    "Reconstruction: un-normalised with the true mean and deviation of each patch, "
    "which the model does not predict. Last column: visible patches pasted over it."
)
_NO_PIXELS = "What is predicted of the hidden patches are features."
# Sides of the enlarged images, in pixels, are at least this.
_SIDE = 160
_GAP = 10
_TEXT = 15
_HIDDEN = 128
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def reconstruction_sheet(
    images: UInt8[Array, "B H W C"],
    hidden: Float[Array, "B N"],
    pred: Float[Array, "B N P"] | None,
    *,
    patch_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    norm_pix: bool,
) -> UInt8[np.ndarray, "height width 3"]:
    """A sheet with one row an example: input, masked input and two reconstructions.

    Where no pixels are predicted, it ends with the masked input.

    Small images are enlarged pixel by pixel. The first three channels are shown as
    colours; fewer than three, the first as grey.

    Args:
        images: what the batch held, before normalisation.
        hidden: 1 = the encoder did not see the patch.
        pred: what the model predicts for every patch, in its own units; or None.
        patch_size: height and width of a patch, in pixels.
        mean: of the pixels in [0, 1], one number a channel; as in the model.
        std: likewise.
        norm_pix: whether `pred` is in units of each patch's own mean and deviation;
            the true ones then bring it back to pixels, and the caption says so.

    Returns:
        The sheet.

    Raises:
        ValueError: the shapes do not belong together.
    """
    shown = np.asarray(images)
    count, height, width, channels = shown.shape
    grid = height // patch_size[0], width // patch_size[1]
    tokens, values = grid[0] * grid[1], patch_size[0] * patch_size[1] * channels
    wanted = (count, tokens), (count, tokens, values)
    shapes = np.shape(hidden), wanted[1] if pred is None else np.shape(pred)
    if shapes != wanted:
        raise ValueError(
            f"images {shown.shape} with patches {tuple(patch_size)} need hidden "
            f"{wanted[0]} and pred {wanted[1]}, got {shapes[0]} and {shapes[1]}"
        )
    unseen = token_pixels(np.asarray(hidden) > 0, grid, patch_size)
    masked = greyed(shown, unseen)
    if pred is None:
        return sheet(
            [enlarged(shown), enlarged(masked)], _TITLES[:2], caption=_NO_PIXELS
        )
    made = predicted_pixels(
        shown, pred, patch_size=patch_size, mean=mean, std=std, norm_pix=norm_pix
    )
    pasted = np.where(unseen, made, shown)
    columns = [enlarged(column) for column in (shown, masked, made, pasted)]
    return sheet(columns, _TITLES, caption=_NORMALISED if norm_pix else _RAW)


def predicted_pixels(
    images: UInt8[np.ndarray, "B H W C"],
    pred: Float[Array, "B N P"],
    *,
    patch_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    norm_pix: bool,
) -> UInt8[np.ndarray, "B H W C"]:
    """Predictions as pixels; see `reconstruction_sheet` for the arguments."""
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    normal = (images / np.float32(255) - shift) / scale
    predicted = np.asarray(pred, np.float32)
    if norm_pix:
        truth = patchify(jnp.asarray(normal), patch_size)
        _, patch_mean, patch_std = normalise_patches(truth)
        predicted = predicted * np.asarray(patch_std) + np.asarray(patch_mean)
    grid = images.shape[1] // patch_size[0], images.shape[2] // patch_size[1]
    pixels = (
        np.asarray(unpatchify(jnp.asarray(predicted), patch_size, grid)) * scale + shift
    )
    # A diverged model predicts NaN: black, rather than a warning and any colour.
    pixels = np.nan_to_num(pixels, nan=0, posinf=1, neginf=0)
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def token_pixels(
    tokens: Shaped[np.ndarray, "B N"],
    grid: tuple[int, int],
    patch_size: tuple[int, int],
) -> Shaped[np.ndarray, "B H W 1"]:
    """A value a token as a value a pixel."""
    maps = np.asarray(tokens).reshape(-1, *grid)
    return maps.repeat(patch_size[0], 1).repeat(patch_size[1], 2)[..., None]


def greyed(
    images: UInt8[np.ndarray, "B H W C"], hidden: Bool[np.ndarray, "B H W 1"]
) -> UInt8[np.ndarray, "B H W C"]:
    """The images with grey where pixels are hidden."""
    return np.where(hidden, np.uint8(_HIDDEN), images)


def save_png(path: str | os.PathLike, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes a picture so that a reader sees all of it or the one before."""
    from PIL import Image

    partial = Path(path).with_name(f".{Path(path).name}.partial")
    Image.fromarray(picture).save(partial, format="PNG", optimize=True)
    os.replace(partial, path)


def enlarged(images: UInt8[np.ndarray, "B H W C"]) -> UInt8[np.ndarray, "B h w 3"]:
    """Enlarged to a readable size, pixel by pixel, in three channels."""
    factor = max(1, -(-_SIDE // max(images.shape[1:3])))
    large = images.repeat(factor, 1).repeat(factor, 2)
    return large[..., :3] if images.shape[-1] >= 3 else large[..., :1].repeat(3, -1)


def sheet(
    columns: Sequence[UInt8[np.ndarray, "B h w 3"]],
    titles: Sequence[str],
    *,
    caption: str,
) -> UInt8[np.ndarray, "height width 3"]:
    """Columns of images side by side under their titles, and a caption below."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_TEXT)
    count, height, width, _ = columns[0].shape
    column = max(width, *(int(font.getlength(title)) + 1 for title in titles))
    sheet_width = len(columns) * (column + _GAP) + _GAP
    letters = int((sheet_width - 2 * _GAP) / font.getlength("abcdefghij") * 10)
    lines = textwrap.wrap(caption, letters)
    top, line = _TEXT + 2 * _GAP, _TEXT + 5
    bottom = top + count * (height + _GAP)
    canvas = Image.new("RGB", (sheet_width, bottom + len(lines) * line + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (title, images) in enumerate(zip(titles, columns, strict=True)):
        left = _GAP + index * (column + _GAP) + (column - width) // 2
        middle = left + width // 2
        draw.text((middle, top // 2), title, fill=_INK, font=font, anchor="mm")
        for row, image in enumerate(images):
            place = (left, top + row * (height + _GAP))
            canvas.paste(Image.fromarray(np.ascontiguousarray(image)), place)
    for row, text in enumerate(lines):
        draw.text((_GAP, bottom + row * line), text, fill=_INK, font=font)
    return np.asarray(canvas)
