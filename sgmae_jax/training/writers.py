"""Where numbers and pictures of a run go: metrics.jsonl, TensorBoard, PNG files."""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping

import numpy as np


class MetricWriter:
    """Appends to metrics.jsonl and, if asked, to TensorBoard events.

    A run that resumes at step s drops what was written after s, so that the file
    reads like that of a run that was never interrupted.

    Args:
        workdir: the run directory.
        start_step: step the run starts or resumes at.
        tensorboard: also write events, below `tensorboard/`.
    """

    def __init__(self, workdir: pathlib.Path, *, start_step: int, tensorboard: bool):
        self.folder = workdir
        self._path = workdir / "metrics.jsonl"
        _truncate_after(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = None
        if tensorboard:
            self._events = _event_writer(
                str(workdir / "tensorboard"), purge_step=start_step + 1
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line; a number that is not finite becomes null; no values, no line."""
        if not values:
            return
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in values.items()
        }
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Shows u8[H,W,3] in TensorBoard; the PNG is the caller's."""
        if self._events is not None:
            self._events.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes everything."""
        self._file.close()
        if self._events is not None:
            self._events.close()


class NoWriter:
    """Of a process that is not the first: takes everything and writes nothing."""

    folder: None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


Writer = MetricWriter | NoWriter


def _event_writer(folder: str, *, purge_step: int):
    """tensorboardX's writer, imported without PyTorch.

    It would import that, where it is installed, for the name of a type: seconds of
    every start.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(folder, purge_step=purge_step)


def _truncate_after(path: pathlib.Path, step: int) -> None:
    """Drops lines of later steps, and the half line a kill may have left."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)
