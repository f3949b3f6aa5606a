"""Synthetic roads: curving lanes, and vehicles that follow them.

The embedded default, to try methods and tests with; scene i follows from (seed, split,
i) alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from sgmae_jax.data.motion.scene import (
    HERTZ,
    LANE_POINTS,
    STEPS,
    Scene,
    Tracks,
    make_scene,
    resampled,
)
from sgmae_jax.data.source import digest

VERSION = 1
_WIDTH = 4.0  # of a lane, metres
_REACH = 160.0  # of a road to either side of the origin, metres
_SPACING = 1.0  # of the points that vehicles follow


@dataclass(frozen=True)
class RoadConfig:
    """How roads vary.

    Attributes:
        train_length: scenes of the split train.
        test_length: scenes of the splits validation and test.
        roads: fewest and most that meet near the origin.
        lanes: fewest and most of a road, all one way.
        agents: fewest and most vehicles and pedestrians.
        curvature: largest, 1/m.
        speed: slowest and fastest, m/s.
        noise: deviation of observed positions, metres.
    """

    train_length: int = 2000
    test_length: int = 200
    roads: tuple[int, int] = (1, 3)
    lanes: tuple[int, int] = (1, 3)
    agents: tuple[int, int] = (3, 12)
    curvature: float = 0.02
    speed: tuple[float, float] = (3.0, 15.0)
    noise: float = 0.03


class Roads:
    """Scenes with lanes that bend and agents that keep to them.

    Vehicles brake or speed up at a constant rate; pedestrians cross. The focal agent
    is a vehicle that moves.

    Args:
        split: "train", "validation" or "test".
        seed: >= 0.
        config: how many, and how they vary.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self, *, split: str = "train", seed: int = 0, config: RoadConfig | None = None
    ):
        self._config = config or RoadConfig()
        self._key = [VERSION, seed, zlib.crc32(split.encode())]
        train = split == "train"
        part = self._config
        self._length = part.train_length if train else part.test_length
        self.name = f"synthetic_roads/{split}"
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return self._length

    def fingerprint(self) -> str:
        return digest((*self._key, self._config))

    def names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """What a scene and its agents are called."""
        tracks = self[index]["agent_track"].tolist()
        return f"road-{index}", tuple(map(str, tracks))

    def __getitem__(self, index: int) -> Scene:
        rng = np.random.default_rng([*self._key, index])
        part = self._config
        lanes = [
            lane
            for _ in range(rng.integers(part.roads[0], part.roads[1] + 1))
            for lane in _road(rng, part)
        ]
        count = int(rng.integers(part.agents[0], part.agents[1] + 1))
        position = np.zeros((count, STEPS, 2))
        heading = np.zeros((count, STEPS))
        kind = np.zeros(count, int)
        for agent in range(count):
            line = lanes[0 if agent == 0 else rng.integers(len(lanes))]
            walks = agent > 0 and rng.random() < 0.15
            kind[agent] = int(walks)
            place, angle = _follow(rng, line, part, walks=walks, first=agent == 0)
            position[agent], heading[agent] = place, angle
        position += rng.normal(0.0, part.noise, position.shape)
        velocity = np.asarray(np.gradient(position, 1 / HERTZ, axis=1))
        valid = np.ones((count, STEPS), bool)
        for agent in range(1, count):  # seen late or lost early
            valid[agent, : rng.integers(0, 40)] = False
            if rng.random() < 0.5:
                valid[agent, STEPS - rng.integers(1, 55) :] = False
        tracks = Tracks(
            position=position,
            heading=heading,
            velocity=velocity,
            valid=valid,
            kind=kind,
            still=np.zeros(count, bool),
            scored=valid.all(1) & (kind == 0),
            focal=0,
            viewer=0,
        )
        pieces = [piece for line in lanes for piece in _pieces(line)]
        return make_scene(tracks, np.stack(pieces))


def _road(rng: np.random.Generator, part: RoadConfig) -> list[np.ndarray]:
    """Parallel centre lines, a point a metre, through the neighbourhood of 0."""
    bend = rng.uniform(-part.curvature, part.curvature)
    along = np.arange(-_REACH, _REACH, _SPACING)
    # Curvature that fades away from the middle, so that no road bites its tail.
    angle = rng.uniform(-np.pi, np.pi) + bend * 40 * np.tanh(along / 40)
    steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * _SPACING
    middle = np.cumsum(steps, axis=0)
    middle -= middle[len(along) // 2] + rng.uniform(-15, 15, 2)
    normal = np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    count = int(rng.integers(part.lanes[0], part.lanes[1] + 1))
    return [middle + normal * _WIDTH * lane for lane in range(count)]


def _follow(
    rng: np.random.Generator,
    line: np.ndarray,
    part: RoadConfig,
    *,
    walks: bool,
    first: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and headings of one agent along a line, or across it."""
    seconds = np.arange(STEPS) / HERTZ
    if walks:
        start = line[rng.integers(len(line))] + rng.normal(0.0, 3.0, 2)
        angle = rng.uniform(-np.pi, np.pi)
        pace = rng.uniform(0.5, 2.0) * np.array([np.cos(angle), np.sin(angle)])
        return start + seconds[:, None] * pace, np.full(STEPS, angle)
    speed = rng.uniform(*part.speed)
    # A focal vehicle never stops; others may.
    slowest = 1.0 if first else 0.0
    change = rng.uniform(-1.0, 1.0)
    pace = np.clip(speed + change * seconds, slowest, 1.5 * part.speed[1])
    gone = np.concatenate([[0.0], np.cumsum(pace[:-1]) / HERTZ])
    longest = (len(line) - 1) * _SPACING - gone[-1]
    middle = len(line) * _SPACING / 2 - gone[STEPS // 2]
    start = np.clip(middle + rng.uniform(-40, 40), 0.0, max(longest, 0.0))
    place = np.minimum((start + gone) / _SPACING, len(line) - 1.0)
    index = np.arange(len(line))
    found = np.stack([np.interp(place, index, axis) for axis in line.T], axis=1)
    ahead = np.gradient(line, axis=0)
    angles = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
    return found, np.interp(place, index, angles)


def _pieces(line: np.ndarray, length: int = 40) -> list[np.ndarray]:
    """A line in segments of about 40 m, as maps have them."""
    return [
        resampled(line[start : start + length + 1], LANE_POINTS)
        for start in range(0, len(line) - 1, length)
    ]
