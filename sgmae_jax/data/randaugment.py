"""RandAugment: two random changes of an image's colours or geometry, by Pillow.

The ops, their chance and their ranges are those of timm's `rand-m9-mstd0.5-inc1`, with
which MAE is fine-tuned: every op grows stronger with the magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

FULL = 10.0  # the largest magnitude
_COUNT = 2
_CHANCE = 0.5
_BICUBIC = Image.Resampling.BICUBIC
_Fill = tuple[int, ...]


@dataclass(frozen=True)
class RandAugment:
    """How strongly images are changed.

    Attributes:
        magnitude: mean of an op's magnitude, 0 to 10.
        std: its deviation; what is drawn is clipped to 0 to 10.
        fill: what comes in from outside of the image, 0 to 255, one a channel.
    """

    magnitude: float
    std: float
    fill: _Fill


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: _Fill) -> Image.Image:
    mode = Image.Transform.AFFINE
    return image.transform(image.size, mode, matrix, _BICUBIC, fillcolor=fill)


def _enhance(kind) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, s: kind(image).enhance(max(0.1, 1 + 0.9 * s))


def _solarize_add(image: Image.Image, s: float) -> Image.Image:
    """Brightens the dark half by up to 110."""
    added = min(128, int(abs(s) * 110))
    table = [value + added if value < 128 else value for value in range(256)]
    return image.point([min(255, value) for value in table] * len(image.getbands()))


def _bits(s: float) -> int:
    """Kept of each value, from four down."""
    # Deviation: timm's keeps none at the largest magnitude, which blackens the image.
    return max(1, 4 - int(4 * abs(s)))


# (image, s, fill) -> image, of the same size; s is the magnitude's share of the largest
# one, of random sign. Alpha moves with the colours.
MOVES: dict[str, Callable[[Image.Image, float, _Fill], Image.Image]] = {
    "rotate": lambda image, s, fill: image.rotate(30 * s, _BICUBIC, fillcolor=fill),
    "shear_x": lambda image, s, fill: _affine(image, (1, 0.3 * s, 0, 0, 1, 0), fill),
    "shear_y": lambda image, s, fill: _affine(image, (1, 0, 0, 0.3 * s, 1, 0), fill),
    "translate_x": lambda image, s, fill: _affine(
        image, (1, 0, 0.45 * s * image.width, 0, 1, 0), fill
    ),
    "translate_y": lambda image, s, fill: _affine(
        image, (1, 0, 0, 0, 1, 0.45 * s * image.height), fill
    ),
}
# (image, s) -> image; where the sign says nothing, the size counts. Alpha stays.
COLOURS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "invert": lambda image, s: ImageOps.invert(image),
    "posterize": lambda image, s: ImageOps.posterize(image, _bits(s)),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 - int(abs(s) * 256)),
    "solarize_add": _solarize_add,
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
}
NAMES = (*COLOURS, *MOVES)


def rand_augment(
    rng: np.random.Generator, image: UInt8[np.ndarray, "h w C"], config: RandAugment
) -> UInt8[np.ndarray, "h w C"]:
    """Returns an image after two ops of the fifteen, each applied with chance 1/2.

    Args:
        rng: source of all chance.
        image: 1 (grey), 3 (RGB) or 4 (RGB and alpha) channels.
        config: how strongly.

    Raises:
        ValueError: another number of channels.

    Reference: Cubuk et al., RandAugment (2020); timm's auto_augment.
    """
    magnitudes = rng.normal(config.magnitude, config.std, _COUNT).clip(0, FULL)
    signs = rng.choice((-1, 1), _COUNT)
    wanted = rng.random(_COUNT) < _CHANCE
    picked = rng.integers(len(NAMES), size=_COUNT)
    for index, s in zip(picked[wanted], (signs * magnitudes)[wanted], strict=True):
        image = apply_op(NAMES[index], image, float(s) / FULL, config.fill)
    return image


def apply_op(
    name: str, image: UInt8[np.ndarray, "h w C"], s: float, fill: _Fill
) -> UInt8[np.ndarray, "h w C"]:
    """Returns an image after one op.

    Args:
        name: of `NAMES`.
        image: as of `rand_augment`.
        s: share of the largest magnitude, -1 to 1.
        fill: as of `RandAugment`.
    """
    channels = image.shape[2]
    if channels not in (1, 3, 4):
        raise ValueError(f"RandAugment takes 1, 3 or 4 channels, not {channels}")
    # Pillow would weigh the colours by alpha; so the two are handled apart.
    parts = [image[..., :3]] + [image[..., 3:]] * (channels == 4)
    if name in COLOURS:
        parts[0] = _array(COLOURS[name](_image(parts[0]), s))
    else:
        move, fills = MOVES[name], (fill[:3], fill[3:])
        parts = [
            _array(move(_image(part), s, own))
            for part, own in zip(parts, fills, strict=False)
        ]
    return np.concatenate(parts, axis=-1)


def _image(pixels: UInt8[np.ndarray, "h w C"]) -> Image.Image:
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(pixels))


def _array(image: Image.Image) -> UInt8[np.ndarray, "h w C"]:
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
