"""Scenarios of Argoverse 2 motion forecasting, from their own files.

A scenario is a folder with `scenario_<id>.parquet` (tracks at 10 Hz) and
`log_map_archive_<id>.json` (lanes).

Reference: Wilson et al., Argoverse 2 (2021); argoverse/av2-api for the formats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.motion.cache import SceneCache, build_cache
from sgmae_jax.data.motion.scene import (
    HERTZ,
    HISTORY,
    LANE_POINTS,
    PRESENT,
    RADIUS,
    STEPS,
    BadScene,
    Scene,
    Tracks,
    make_scene,
    resampled,
)
from sgmae_jax.data.source import digest
from sgmae_jax.user_cache import user_cache

# Raised when the features of a scenario change: what was cached is made again.
VERSION = 1
_KIND = {
    "vehicle": 0,
    "bus": 0,
    "pedestrian": 1,
    "motorcyclist": 2,
    "cyclist": 2,
}
_STILL = ("static", "background", "construction", "riderless_bicycle", "unknown")
_SCORED = (2, 3)  # object_category: scored and focal tracks
_VIEWER = "AV"
_SPLITS = {"validation": "val"}
_COLUMNS = (
    *("track_id", "object_type", "object_category", "timestep"),
    *("position_x", "position_y", "heading", "velocity_x", "velocity_y"),
    *("focal_track_id", "scenario_id", "num_timestamps"),
    *("start_timestamp", "end_timestamp"),
)
_BOUNDARY_POINTS = 50


class Scenario(NamedTuple):
    """A scenario and what it is called in a submission.

    Attributes:
        scene: its features.
        scenario_id: as in its file.
        track_ids: of the scene's agents, in their order.
    """

    scene: Scene
    scenario_id: str
    track_ids: tuple[str, ...]


def read_scenario(folder: Path, *, view: str = "focal") -> Scenario:
    """Reads one scenario.

    Args:
        folder: with its two files.
        view: "focal", the frame of the focal agent; or "vehicle", that of the recording
            vehicle, where scored agents stay however far they are.

    Raises:
        BadScene: a file is missing or damaged, there is no focal track or no lane, or
            its time steps are not 110 at 10 Hz.
    """
    table = _read_table(_only(folder, "scenario_*.parquet"))
    ids, tracks = _tracks(table, view)
    lanes = _lanes(
        _read_json(_only(folder, "log_map_archive_*.json")),
        tracks.position[tracks.viewer, PRESENT],
    )
    scene = make_scene(tracks, lanes, keep_scored=view == "vehicle")
    names = tuple(ids[index] for index in scene["agent_track"])
    return Scenario(scene, str(table["scenario_id"][0]), names)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise BadScene(f"has {len(found)} files {pattern}, and must have one")
    return found[0]


def _read_table(path: Path) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        # From bytes: the library's messages name the whole path of a file.
        content = pyarrow.BufferReader(path.read_bytes())
        table = pyarrow.parquet.read_table(content)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        reason = reason.removeprefix("Could not open Parquet input source '<Buffer>': ")
        raise BadScene(f"{path.name} cannot be read: {reason}") from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise BadScene(f"{path.name} has no column {', '.join(missing)}")
    if not table.num_rows:
        raise BadScene(f"{path.name} has no rows")
    return {
        name: np.asarray(table[name].to_numpy(zero_copy_only=False))
        for name in _COLUMNS
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        found["lane_segments"].values()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        words = f"{type(error).__name__}: {error}"
        raise BadScene(f"{path.name} cannot be read: {words}") from None
    return found


def _tracks(table: dict[str, np.ndarray], view: str) -> tuple[list[str], Tracks]:
    steps = table["timestep"]
    seconds = (table["end_timestamp"][0] - table["start_timestamp"][0]) * 1e-9
    counted = int(table["num_timestamps"][0])
    # What is to be forecast for a benchmark ends at the present.
    if counted not in (HISTORY, STEPS) or steps.min() < 0 or steps.max() >= counted:
        raise BadScene(
            f"has steps {steps.min()} to {steps.max()} of {counted}, must have {STEPS}"
        )
    if abs(seconds - (counted - 1) / HERTZ) > 1 / HERTZ:
        raise BadScene(
            f"lasts {seconds:.2f} s, {counted} steps at {HERTZ:g} Hz last "
            f"{(counted - 1) / HERTZ:.1f} s"
        )
    present = table["track_id"][steps == PRESENT]
    ids = [str(name) for name in dict.fromkeys(present.tolist())]
    numbers = {name: index for index, name in enumerate(ids)}
    focal = str(table["focal_track_id"][0])
    viewer = focal if view == "focal" else _VIEWER
    for name, what in ((focal, "focal track"), (viewer, "track of the vehicle")):
        if name not in numbers:
            raise BadScene(f"has no {what} {name!r} at step {PRESENT}")
    rows = [index for index, n in enumerate(table["track_id"]) if str(n) in numbers]
    who = np.array([numbers[str(table["track_id"][index])] for index in rows])
    when = steps[rows]
    position = np.full((len(ids), STEPS, 2), np.nan)
    velocity = np.full((len(ids), STEPS, 2), np.nan)
    heading = np.full((len(ids), STEPS), np.nan)
    valid = np.zeros((len(ids), STEPS), bool)
    valid[who, when] = True
    heading[who, when] = table["heading"][rows]
    for axis, name in enumerate("xy"):
        position[who, when, axis] = table[f"position_{name}"][rows]
        velocity[who, when, axis] = table[f"velocity_{name}"][rows]
    finite = np.isfinite(position).all(-1) & np.isfinite(velocity).all(-1)
    if not (finite & np.isfinite(heading))[valid].all():
        raise BadScene("has positions, headings or velocities that are no numbers")
    kinds = np.empty(len(ids), object)
    category = np.zeros(len(ids), int)
    kinds[who] = table["object_type"][rows]
    category[who] = table["object_category"][rows]
    return ids, Tracks(
        position=position,
        heading=heading,
        velocity=velocity,
        valid=valid,
        kind=np.array([_KIND.get(kind, 3) for kind in kinds]),
        still=np.array([kind in _STILL for kind in kinds]),
        scored=np.isin(category, _SCORED),
        focal=numbers[focal],
        viewer=numbers[viewer],
    )


def _lanes(
    archive: dict[str, Any], center: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "M 20 2"]:
    """Centre lines of the segments near a point, in the order of the file."""
    found = []
    for segment in archive["lane_segments"].values():
        try:
            sides = [
                np.array([[p["x"], p["y"], p["z"]] for p in segment[side]], float)
                for side in ("left_lane_boundary", "right_lane_boundary")
            ]
        except (KeyError, TypeError, ValueError):
            raise BadScene("has a lane segment without boundaries") from None
        if any(len(side) < 2 for side in sides):
            raise BadScene("has a lane boundary of fewer than two points")
        close = (
            np.abs(resampled(side[:, :2], _BOUNDARY_POINTS) - center) <= RADIUS
            for side in sides
        )
        if any(one.all(1).any() for one in close):
            left, right = (resampled(side, LANE_POINTS)[:, :2] for side in sides)
            found.append((left + right) / 2)
    if not found:
        raise BadScene(f"has no lane within {RADIUS:g} m")
    return np.stack(found)


class Argoverse2:
    """A split of the data set, its features cached when it is first opened.

    Args:
        path: folder with train, val and test, each a folder a scenario; or a folder of
            scenarios, which are then the split train.
        split: "train", "validation" (their val) or "test".
        view: as for `read_scenario`.
        bad: "skip" leaves out scenarios that cannot be used, "refuse" raises.
        cache: folder of caches; empty: below the user's cache folder.
        threads: that read scenarios, >= 1.

    Attributes:
        skipped: "scenario: reason" of what was left out.

    Raises:
        DataError: nothing there, or something bad that is to be refused.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        *,
        split: str = "train",
        view: str = "focal",
        bad: str = "skip",
        cache: str = "",
        threads: int = 2,
    ):
        root = Path(path)
        inner = root / _SPLITS.get(split, split)
        if inner.is_dir():
            root = inner
        elif split != "train":
            raise DataError(f"{root.name or 'the folder'} has no split {inner.name!r}")
        files = sorted(root.glob("*/scenario_*.parquet"))
        if not files:
            raise DataError(
                f"{root.name or 'the folder'} has no scenarios */scenario_*.parquet"
            )
        self.name = f"argoverse2/{split}"
        sizes = [(file.parent.name, file.stat().st_size) for file in files]
        self._fingerprint = digest((VERSION, view, bad, *sizes))
        folder = Path(cache or user_cache()) / f"argoverse2-{self._fingerprint}"

        def read(key: str) -> tuple[Scene, str, tuple[str, ...]]:
            found = read_scenario(root / key, view=view)
            return found.scene, found.scenario_id, found.track_ids

        try:
            keys = [file.parent.name for file in files]
            build_cache(folder, keys, read, bad=bad, threads=threads)
            self._scenes = SceneCache(folder)
        except (BadScene, OSError) as error:
            raise DataError(f"{self.name}: {error}") from None
        self.skipped = self._scenes.skipped
        self.names = self._scenes.names
        if not len(self):
            raise DataError(f"{self.name}: no scenario is good; {self.skipped[0]}")

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Scene:
        return self._scenes[index]

    def fingerprint(self) -> str:
        return self._fingerprint
