"""Scenes as batches: agents and lanes padded to one of a few sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgmae_jax.data.motion.scene import Scene
from sgmae_jax.data.rows import Row, stack


@dataclass(frozen=True)
class SceneRows:
    """Batches of the smallest sizes that hold all their scenes.

    The batch has every field of `Scene`, behind the batch axis; agents and lanes past
    those of a scene are False and 0.

    Attributes:
        agents: sizes there are, ascending; scenes with more agents keep the nearest
            ones to the focal agent.
        lanes: likewise of lanes.
        largest: always the largest sizes, as several processes must do alike.
    """

    agents: tuple[int, ...]
    lanes: tuple[int, ...]
    largest: bool = False
    unit: str = "scenes"

    def train(self, item: Scene, rng: np.random.Generator) -> Row:
        """As it is: scenes are not varied."""
        del rng
        return self.plain(item)

    def plain(self, item: Scene) -> Row:
        """The nearest agents and lanes, if there are too many."""
        row: Row = {**item}
        for group, most in (("agent", self.agents[-1]), ("lane", self.lanes[-1])):
            center = item["agent_center"] if group == "agent" else item["lane_center"]
            if len(center) > most:
                away = np.linalg.norm(center - item["agent_center"][0], axis=1)
                kept = np.sort(np.argsort(away, kind="stable")[:most])
                for name in row:
                    if name.startswith(group):
                        row[name] = row[name][kept]
        return row

    whole = plain

    def join(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Padded to the bucket of the batch."""
        sizes = {
            "agent": self._size(self.agents, [len(r["agent_kind"]) for r in rows]),
            "lane": self._size(self.lanes, [len(r["lane_center"]) for r in rows]),
        }
        return stack([_padded(row, sizes) for row in rows])

    def _size(self, sizes: tuple[int, ...], counts: list[int]) -> int:
        if self.largest:
            return sizes[-1]
        return next(size for size in sizes if size >= max(counts))


def _padded(row: Row, sizes: dict[str, int]) -> Row:
    found = {}
    for name, array in row.items():
        size = sizes.get(name.partition("_")[0])
        if size is not None:
            missing = size - len(array)
            array = np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        found[name] = array
    return {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in found.items()
    }
