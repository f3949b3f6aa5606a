"""Ten outlines with their textures, and three backgrounds, on coordinates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "H W"]


def _box(u: Field, v: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disc(u: Field, v: Field, x: float, y: float, radius: float) -> Field:
    return np.hypot(u - x, v - y) - radius


def _triangle(u: Field, v: Field) -> Field:
    sides = np.abs(u) * (math.sqrt(3) / 2) - v / 2
    return np.maximum(v, sides) - 0.5


def _star(u: Field, v: Field) -> Field:
    """Five points at radius 1, five dents at radius 0.5."""
    fifth = 2 * math.pi / 5
    angle = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)
    radius = np.hypot(u, v)
    dent_x, dent_y = 0.5 * math.cos(fifth / 2), 0.5 * math.sin(fifth / 2)
    length = math.hypot(1 - dent_x, dent_y)
    along, across = dent_y / length, (1 - dent_x) / length
    return (radius * np.cos(angle) - 1) * along + radius * np.sin(angle) * across


def _heart(u: Field, v: Field) -> Field:
    """A square on its corner, a disc on each of its upper sides."""
    root = math.sqrt(0.5)
    square = _box((u + v) * root, (v - u) * root, 0.6, 0.6)
    shift = 0.6 * root
    discs = [_disc(u, v, x, -shift, 0.6) for x in (-shift, shift)]
    return np.minimum(square, np.minimum(*discs))


# Signed distance to the outline, negative inside; v points down; radius about 1.
SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": lambda u, v: _disc(u, v, 0, 0, 1),
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "triangle": _triangle,
    "star": _star,
    "cross": lambda u, v: np.minimum(_box(u, v, 1, 0.36), _box(u, v, 0.36, 1)),
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.25,
    "crescent": lambda u, v: np.maximum(
        _disc(u, v, 0, 0, 1), -_disc(u, v, 0.55, 0, 0.7)
    ),
    "bar": lambda u, v: _box(u, v, 1, 0.42),
    "heart": _heart,
    "ell": lambda u, v: np.minimum(
        _box(u + 0.5, v, 0.35, 0.85), _box(u, v - 0.5, 0.85, 0.35)
    ),
}


@functools.cache
def measure(shape: str) -> tuple[float, float]:
    """Returns a shape's area and the radius of the circle around it, by counting."""
    line = np.linspace(-1.5, 1.5, 601)
    u, v = np.meshgrid(line, line)
    inside = SHAPES[shape](u, v) < 0
    area = inside.sum() * (line[1] - line[0]) ** 2
    return float(area), float(np.hypot(u, v)[inside].max())


def _stripes(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    turn, phase = chance[0] * math.pi, chance[1] * 2 * math.pi
    direction = x * math.cos(turn) + y * math.sin(turn)
    return 0.5 + 0.5 * np.sin(2 * math.pi * frequency * direction + phase)


def _waves(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Rings around a point near one of the corners."""
    centre_x = -0.2 if chance[0] < 0.5 else 1.2
    centre_y = -0.2 if chance[1] < 0.5 else 1.2
    radius = np.hypot(x - centre_x, y - centre_y)
    return 0.5 + 0.5 * np.sin(2 * math.pi * (frequency * radius + chance[2]))


def _lattice(x: Field, y: Field, frequency: float, chance: list[float]) -> list[Field]:
    turn = chance[0] * math.pi / 2
    step = 2 * math.pi * frequency
    cos, sin = step * math.cos(turn), step * math.sin(turn)
    first = x * cos + y * sin + chance[1] * 2 * math.pi
    second = y * cos - x * sin + chance[2] * 2 * math.pi
    return [np.sin(first), np.sin(second)]


def _checks(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    first, second = _lattice(x, y, frequency / 1.5, chance)
    return np.clip(0.5 + 2 * first * second, 0, 1)


def _dots(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    first, second = _lattice(x, y, frequency, chance)
    return np.clip(first + second - 0.3, 0, 1)


def _holes(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    return 1 - _dots(x, y, frequency, chance)


def _grid(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Thin bright lines that cross."""
    first, second = _lattice(x, y, frequency / 1.5, chance)
    return np.clip(2.5 * (np.maximum(first, second) - 0.5), 0, 1)


def _zigzag(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    turn = chance[0] * 2 * math.pi
    along = x * math.cos(turn) + y * math.sin(turn)
    across = y * math.cos(turn) - x * math.sin(turn)
    bend = np.abs((across * frequency / 2 + chance[1]) % 1 - 0.5)
    phase = frequency * along + 1.5 * bend + chance[2]
    return 0.5 + 0.5 * np.sin(2 * math.pi * phase)


def _bricks(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Bright bricks, twice as long as high, between dark joints."""
    turn = chance[0] * math.pi
    row = (y * math.cos(turn) - x * math.sin(turn)) * frequency / 1.5 + chance[1]
    shifted = (x * math.cos(turn) + y * math.sin(turn)) * frequency / 3 + chance[2]
    place = (shifted + 0.5 * (np.floor(row) % 2)) % 1
    return ((row % 1 > 0.25) & (place > 0.15)).astype(np.float32)


def _cells(x: Field, y: Field, side: int, chance: float) -> Field:
    """Random numbers in [0, 1) on a lattice of side x side squares."""
    cells = np.random.default_rng(int(chance * 2**32)).random((side, side))
    rows = np.minimum((y * side).astype(np.int64), side - 1)
    columns = np.minimum((x * side).astype(np.int64), side - 1)
    return cells.astype(np.float32)[rows, columns]


def _mosaic(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Squares of random brightness, two to a period."""
    return _cells(x, y, math.ceil(2 * frequency), chance[0])


def _sand(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Much finer squares of random brightness."""
    return _cells(x, y, math.ceil(6 * frequency), chance[0])


def _sparks(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Few small bright squares on dark."""
    lit = _cells(x, y, math.ceil(4 * frequency), chance[0]) > 0.8
    return lit.astype(np.float32)


def _plain(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """A gradient across the image."""
    del frequency
    turn = chance[0] * 2 * math.pi
    return 0.5 + (x - 0.5) * math.cos(turn) / 2 + (y - 0.5) * math.sin(turn) / 2


def _swell(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Wide rings around a point near one of the corners."""
    return _waves(x, y, frequency / 4, chance)


def _clouds(x: Field, y: Field, frequency: float, chance: list[float]) -> Field:
    """Wide soft patches."""
    first, second = _lattice(x, y, frequency / 4, chance)
    return 0.5 + 0.25 * (first + second)


# Brightness in [0, 1] at (x, y) in the unit square; frequency in periods an image;
# `chance` holds three numbers in [0, 1).
Texture = Callable[[Field, Field, float, list[float]], Field]

# What fills an object: one texture a shape, in the order of `SHAPES`.
OBJECT_TEXTURES: dict[str, Texture] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "mosaic": _mosaic,
    "grid": _grid,
    "sparks": _sparks,
    "zigzag": _zigzag,
    "bricks": _bricks,
    "holes": _holes,
    "sand": _sand,
}

# What lies behind it, any of these behind any shape.
BACKGROUND_TEXTURES: dict[str, Texture] = {
    "plain": _plain,
    "swell": _swell,
    "clouds": _clouds,
}
