"""Whole driving scenes as plain arrays, cut into windows of one scenario each.

A scene is an .npz file: position [A,T,2] m, velocity [A,T,2] m/s, heading [A,T] rad,
valid [A,T], object_type [A] (index into `KINDS`), sdc_index (the recording vehicle),
lane_points [P,2] with lane_offsets [M+1], sample_rate_hz.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.motion.scene import (
    HERTZ,
    LANE_POINTS,
    PRESENT,
    STEPS,
    BadScene,
    Scene,
    Tracks,
    make_scene,
    resampled,
)
from sgmae_jax.data.source import digest

STRIDE = 5  # steps from window to window
MOVES = 5.0  # metres that a focal vehicle goes after the present
_KEYS = (
    *("position", "velocity", "heading", "valid", "object_type", "sdc_index"),
    *("lane_points", "lane_offsets", "sample_rate_hz"),
)


class _Window(NamedTuple):
    file: int
    start: int
    focal: int


class SceneFiles:
    """Every window and every vehicle in it that is worth a forecast.

    A focal vehicle is seen in all 110 steps and moves more than 5 m after the present.

    Args:
        path: folder of .npz files, or of folders train, validation and test of them.
        split: "train", "validation" or "test".
        held_out: names of files, without ending, that make the other two splits where
            the folder has none: {"test": (…), "validation": (…)}.
        view: "focal" or "vehicle", whose frame a scene is in.
        bad: "skip" leaves out files and windows that cannot be used, "refuse" raises.

    Attributes:
        skipped: "name: reason" of what was left out.

    Raises:
        DataError: nothing there, or something bad that is to be refused.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        *,
        split: str = "train",
        held_out: Mapping[str, Sequence[str]] | None = None,
        view: str = "focal",
        bad: str = "skip",
    ):
        root = Path(path)
        files = _files_of(root, split, held_out or {})
        self.name = f"{root.name or 'scenes'}/{split}"
        self.skipped: list[str] = []
        self._view = view
        self._scenes: list[dict[str, np.ndarray]] = []
        self._windows: list[_Window] = []
        for file in files:
            try:
                scene = _read(file)
            except BadScene as error:
                if bad == "refuse":
                    raise DataError(f"{file.name}: {error}") from None
                self.skipped.append(f"{file.name}: {error}")
                continue
            for window in _windows(len(self._scenes), scene):
                self._windows.append(window)
            self._scenes.append(scene)
        self._sizes = [(file.name, file.stat().st_size) for file in files]
        self._drop_bad(bad)
        if not self._windows:
            raise DataError(
                f"{self.name} has no window of {STEPS} steps with a moving vehicle"
                + "".join(f"; skipped {one}" for one in self.skipped[:3])
            )

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Scene:
        return self._scene(self._windows[index])

    def fingerprint(self) -> str:
        return digest((self._view, len(self), *self._sizes))

    def names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """What a scene and its agents are called: window, and rows of the file."""
        window = self._windows[index]
        tracks = map(str, self[index]["agent_track"].tolist())
        file = self._scenes[window.file]["name"]
        return f"{file}-{window.start}-{window.focal}", tuple(tracks)

    def _drop_bad(self, bad: str) -> None:
        good = []
        for window in self._windows:
            try:
                self._scene(window)
                good.append(window)
            except BadScene as error:
                name = self._scenes[window.file]["name"]
                where = f"{name}, step {window.start}, vehicle {window.focal}"
                if bad == "refuse":
                    raise DataError(f"{where}: {error}") from None
                self.skipped.append(f"{where}: {error}")
        self._windows = good

    def _scene(self, window: _Window) -> Scene:
        scene = self._scenes[window.file]
        part = slice(window.start, window.start + STEPS)
        valid = scene["valid"][:, part]
        viewer = window.focal if self._view == "focal" else int(scene["sdc_index"])
        vehicles = (scene["object_type"] == 0) & valid.all(1)
        scored = vehicles & (_moved(scene["position"][:, part]) > MOVES)
        tracks = Tracks(
            position=scene["position"][:, part],
            heading=scene["heading"][:, part],
            velocity=scene["velocity"][:, part],
            valid=valid,
            kind=scene["object_type"],
            still=np.zeros(len(valid), bool),
            scored=scored,
            focal=window.focal,
            viewer=viewer,
        )
        return make_scene(tracks, scene["lanes"], keep_scored=self._view == "vehicle")


def _files_of(
    root: Path, split: str, held_out: Mapping[str, Sequence[str]]
) -> list[Path]:
    splits = ("train", "validation", "test")
    if split not in splits:
        raise DataError(f"split {split!r}: scenes have {', '.join(splits)}")
    folders = [name for name in splits if (root / name).is_dir()]
    if folders:
        found = sorted((root / split).glob("*.npz"))
    else:
        found = sorted(root.glob("*.npz"))
        known = {file.stem for file in found}
        for name, stems in held_out.items():
            if missing := sorted(set(stems) - known):
                raise DataError(f"{name} scenes {', '.join(missing)} are not there")
        named = {stem: name for name, stems in held_out.items() for stem in stems}
        found = [file for file in found if named.get(file.stem, "train") == split]
    if not found:
        raise DataError(f"{root.name or 'the folder'} has no scenes *.npz for {split}")
    return found


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as found:
            scene = {key: found[key] for key in _KEYS if key in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadScene(f"cannot be read: {error}") from None
    if missing := [key for key in _KEYS if key not in scene]:
        raise BadScene(f"has no {', '.join(missing)}")
    agents, steps = scene["valid"].shape
    shapes = {
        "position": (agents, steps, 2),
        "velocity": (agents, steps, 2),
        "heading": (agents, steps),
        "object_type": (agents,),
    }
    for key, shape in shapes.items():
        if scene[key].shape != shape:
            raise BadScene(f"{key} has shape {scene[key].shape}, must have {shape}")
    rate = float(scene["sample_rate_hz"])
    if rate != HERTZ:
        raise BadScene(f"has {rate:g} steps a second, must have {HERTZ:g}")
    if steps < STEPS:
        raise BadScene(f"has {steps} steps, must have at least {STEPS}")
    for key in ("position", "velocity", "heading"):
        if not np.isfinite(scene[key][scene["valid"]]).all():
            raise BadScene(f"{key} holds what is no number")
    offsets = scene["lane_offsets"]
    lines = [
        scene["lane_points"][start:end]
        for start, end in itertools.pairwise(offsets)
        if end > start
    ]
    if not lines:
        raise BadScene("has no lanes")
    lanes = np.stack(
        [resampled(line.astype(np.float64), LANE_POINTS) for line in lines]
    )
    return {**scene, "lanes": lanes, "name": np.str_(file.stem)}


def _moved(position: np.ndarray) -> np.ndarray:
    """Metres from the present to the end of a window."""
    return np.linalg.norm(position[:, -1] - position[:, PRESENT], axis=-1)


def _windows(file: int, scene: dict[str, np.ndarray]) -> list[_Window]:
    found = []
    vehicles = scene["object_type"] == 0
    for start in range(0, scene["valid"].shape[1] - STEPS + 1, STRIDE):
        part = slice(start, start + STEPS)
        seen = scene["valid"][:, part].all(1)
        moves = _moved(scene["position"][:, part]) > MOVES
        for focal in np.flatnonzero(vehicles & seen & moves):
            found.append(_Window(file, start, int(focal)))
    return found
