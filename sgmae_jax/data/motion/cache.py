"""Scenes kept in one folder of flat files, to be read at random.

Every field lies in a file of its own, the agents (or lanes) of all scenes one below the
other, and is mapped into memory. The folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sgmae_jax.data.motion.scene import BadScene, Scene

_INDEX = "index.json"
# Field -> its type and the shape of one agent, lane or scene.
_AGENTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "agent_steps": ("<f4", (50, 2)),
    "agent_speed_change": ("<f4", (50,)),
    "agent_past": ("<f4", (50, 2)),
    "agent_future": ("<f4", (60, 2)),
    "agent_present": ("|b1", (110,)),
    "agent_center": ("<f4", (2,)),
    "agent_heading": ("<f4", ()),
    "agent_kind": ("<i4", ()),
    "agent_scored": ("|b1", ()),
    "agent_track": ("<i4", ()),
}
_LANES: dict[str, tuple[str, tuple[int, ...]]] = {
    "lane_points": ("<f4", (20, 2)),
    "lane_present": ("|b1", (20,)),
    "lane_center": ("<f4", (2,)),
    "lane_heading": ("<f4", ()),
}
_SCENES: dict[str, tuple[str, tuple[int, ...]]] = {
    "origin": ("<f8", (2,)),
    "rotation": ("<f8", ()),
}
Read = Callable[[str], tuple[Scene, str, tuple[str, ...]]]


class SceneCache:
    """Scenes by index, from a folder that `build_cache` has made.

    Args:
        folder: its place.

    Attributes:
        skipped: "name: reason" of the scenes that were left out when it was made.
    """

    def __init__(self, folder: Path):
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        self.skipped: list[str] = index["skipped"]
        self._names: list[list[Any]] = index["names"]
        self._bounds = {
            group: np.concatenate([[0], np.cumsum(index[group])])
            for group in ("agents", "lanes")
        }
        fields = {**_AGENTS, **_LANES, **_SCENES}
        counts = {name: int(self._bounds["agents"][-1]) for name in _AGENTS}
        counts |= {name: int(self._bounds["lanes"][-1]) for name in _LANES}
        counts |= {name: len(self._names) for name in _SCENES}
        self._maps = {
            name: np.memmap(folder / name, kind, "r", shape=(counts[name], *shape))
            for name, (kind, shape) in fields.items()
        }

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < len(self):
            raise IndexError(index)
        found: dict[str, Any] = {}
        for group, names in (("agents", _AGENTS), ("lanes", _LANES)):
            low, high = self._bounds[group][index : index + 2]
            found |= {name: np.array(self._maps[name][low:high]) for name in names}
        found |= {name: np.array(self._maps[name][index]) for name in _SCENES}
        return found  # type: ignore[return-value]

    def names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """What a scene and its agents are called."""
        scene, tracks = self._names[index]
        return scene, tuple(tracks)


def build_cache(
    folder: Path, keys: Sequence[str], read: Read, *, bad: str, threads: int
) -> None:
    """Makes the folder from scenes read one by one, unless it is there.

    Several processes may do so at once; the first to end wins, and all had the same.
    What a killed one leaves is a hidden folder beside it that nobody reads.

    Args:
        folder: where it will be.
        keys: of the scenes, in order.
        read: key -> (scene, its name, names of its agents).
        bad: "skip" leaves out scenes that cannot be used, "refuse" raises.
        threads: that read, >= 1.

    Raises:
        BadScene: a scene is bad and to be refused; the key stands in front.
        OSError: the folder cannot be written.
    """
    if (folder / _INDEX).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o770)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        index = _write(partial, keys, read, bad=bad, threads=threads)
        text = json.dumps(index)
        (partial / _INDEX).write_text(text, encoding="utf-8")
        with contextlib.suppress(OSError):
            os.replace(partial, folder)
        if not (folder / _INDEX).is_file():
            raise OSError(f"{folder.name} cannot be put in its place")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    partial: Path, keys: Sequence[str], read: Read, *, bad: str, threads: int
) -> dict[str, Any]:
    index: dict[str, Any] = {"names": [], "agents": [], "lanes": [], "skipped": []}

    def attempt(key: str) -> tuple[Scene, str, tuple[str, ...]] | str:
        try:
            return read(key)
        except BadScene as error:
            return f"{key}: {error}"

    with contextlib.ExitStack() as stack:
        fields = {**_AGENTS, **_LANES, **_SCENES}
        files = {
            name: stack.enter_context((partial / name).open("wb")) for name in fields
        }
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for found in _bounded(pool, attempt, keys, 4 * threads):
            if isinstance(found, str):
                if bad == "refuse":
                    raise BadScene(found)
                index["skipped"].append(found)
                continue
            scene, name, tracks = found
            index["names"].append([name, list(tracks)])
            index["agents"].append(len(scene["agent_kind"]))
            index["lanes"].append(len(scene["lane_center"]))
            for field, (kind, _) in fields.items():
                array = np.asarray(scene[field], kind)
                files[field].write(array.tobytes())
    return index


def _bounded(
    pool: ThreadPoolExecutor, work: Callable, keys: Sequence[str], ahead: int
) -> Iterator[Any]:
    """As `pool.map`, in order, but never more than so many results waiting."""
    for start in range(0, len(keys), ahead):
        yield from pool.map(work, keys[start : start + ahead])
