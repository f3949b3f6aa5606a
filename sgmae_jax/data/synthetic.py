"""Textured objects on textured backgrounds: images that need no files.

Each image shows one object. Its class is its shape, and each shape is filled with a
texture of its own, as things are in the world; place, size, turn, colours, the phase
and direction of the texture, and the background are free. A masked autoencoder's patch
clusters can be scored against the true object mask, its features against the class.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.images import set_channels
from sgmae_jax.data.shapes import (
    BACKGROUND_TEXTURES,
    OBJECT_TEXTURES,
    SHAPES,
    measure,
)
from sgmae_jax.data.source import Example, digest

CLASSES = tuple(SHAPES)
_FILLINGS = tuple(OBJECT_TEXTURES.values())
_BACKGROUNDS = tuple(BACKGROUND_TEXTURES.values())
_HUES = np.array([0, 1 / 3, 2 / 3], np.float32) * 2 * math.pi


@dataclass(frozen=True)
class SyntheticConfig:
    """How many images there are, and how much they vary.

    Attributes:
        train_length: images in the split "train".
        test_length: images in the split "test".
        area: smallest and largest share of the image the object covers.
        turn: largest rotation to either side, in degrees.
        shift: how much of the free room around the object its place may use, 0 to 1.
        frequency: fewest and most periods of a texture across the image.
        contrast: smallest and largest step in brightness within a texture; above 1 its
            extremes are cut.
        brightness: darkest and brightest mean of a texture, 0 to 1.
        saturation: palest and strongest colour, 0 to 1.
        hue_gap: smallest distance of the object's hue from the background's, as a
            share of the colour circle, 0 to 0.5.
        noise: standard deviation of the noise on every pixel value, 0 to 1.
    """

    train_length: int = 20_000
    test_length: int = 2_000
    area: tuple[float, float] = (0.2, 0.45)
    turn: float = 180.0
    shift: float = 1.0
    frequency: tuple[float, float] = (4.0, 7.0)
    contrast: tuple[float, float] = (0.8, 1.2)
    brightness: tuple[float, float] = (0.4, 0.6)
    saturation: tuple[float, float] = (0.1, 0.5)
    hue_gap: float = 0.25
    noise: float = 0.02


def _between(limits: tuple[float, float], chance: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * chance


class Synthetic:
    """Ten shapes on three backgrounds; image i follows from (seed, split, i) alone.

    Args:
        split: "train" or "test".
        seed: >= 0; another seed gives other images.
        image_size: (h, w) in pixels. Positions and textures are relative to it:
            another size shows the same scene, stretched if it is not square.
        channels: 1, 3 or 4 (an opaque alpha).
        config: how many images, and how they vary.
    """

    name = "synthetic"
    classes = CLASSES
    pixel_classes = ("background", *CLASSES)

    def __init__(
        self,
        *,
        split: str = "train",
        seed: int = 0,
        image_size: tuple[int, int] = (32, 32),
        channels: int = 3,
        config: SyntheticConfig = SyntheticConfig(),
    ):
        lengths = {"train": config.train_length, "test": config.test_length}
        if split not in lengths:
            raise DataError(f"synthetic has the splits train and test, not {split!r}")
        self._length = lengths[split]
        self._split = split
        self._seed = seed
        self._channels = channels
        self._config = config
        height, width = self._image_size = image_size
        y, x = np.mgrid[:height, :width].astype(np.float32)
        self._x, self._y = (x + 0.5) / width, (y + 0.5) / height

    def __len__(self) -> int:
        return self._length

    def fingerprint(self) -> str:
        fields = (self._split, self._seed, self._image_size, astuple(self._config))
        return digest((self.name, len(self), *self.classes, *fields))

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        label = index % len(CLASSES)
        key = zlib.crc32(f"synthetic {self._split}".encode())
        rng = np.random.default_rng([self._seed, key, index])
        object_mask, cover = self._outline(rng, label)
        scene = self._paint(rng, label, cover)
        if self._config.noise:
            scene += self._config.noise * rng.standard_normal(scene.shape, np.float32)
        image = (np.clip(scene, 0, 1) * 255 + 0.5).astype(np.uint8)
        if self._channels != 3:
            image = set_channels(Image.fromarray(image), self._channels)
        return {
            "image": image,
            "label": label,
            "object_mask": object_mask,
            "segments": object_mask * np.uint8(label + 1),
        }

    def _outline(
        self, rng: np.random.Generator, label: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places the object; returns its mask and its share of every pixel."""
        config = self._config
        area, turn, right, down = rng.random(4).tolist()
        unit_area, unit_radius = measure(CLASSES[label])
        scale = math.sqrt(_between(config.area, area) / unit_area)
        room = config.shift * max(0.0, 0.5 - scale * unit_radius)
        x = (self._x - (0.5 + room * (2 * right - 1))) / scale
        y = (self._y - (0.5 + room * (2 * down - 1))) / scale
        angle = math.radians(config.turn * (2 * turn - 1))
        cos, sin = math.cos(angle), math.sin(angle)
        distance = SHAPES[CLASSES[label]](x * cos + y * sin, y * cos - x * sin)
        # Within half a pixel of the outline both surfaces show.
        cover = np.clip(0.5 - distance * (scale * min(self._image_size)), 0, 1)
        return distance < 0, cover[..., None]

    def _paint(
        self, rng: np.random.Generator, label: int, cover: np.ndarray
    ) -> Float[np.ndarray, "H W 3"]:
        """Fills object and background with two unlike textures and colours."""
        config = self._config
        hue, gap = rng.random(2).tolist()
        background = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
        surfaces = []
        for texture in (background, _FILLINGS[label]):
            chance = rng.random(7).tolist()
            frequency = _between(config.frequency, chance[3])
            pattern = texture(self._x, self._y, frequency, chance[:3])
            brightness = _between(config.brightness, chance[4])
            contrast = _between(config.contrast, chance[5])
            saturation = _between(config.saturation, chance[6])
            colour = 1 + saturation * np.cos(hue * 2 * math.pi + _HUES)
            level = brightness + contrast * (pattern - 0.5)
            surfaces.append(level[..., None] * colour)
            hue += config.hue_gap + (1 - 2 * config.hue_gap) * gap
        return surfaces[0] + (surfaces[1] - surfaces[0]) * cover
