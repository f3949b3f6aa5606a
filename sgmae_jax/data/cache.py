"""Decoded pixels in one flat file, mapped into memory: each image is decoded once.

The folder of a source appears whole or not at all, under a name that follows from the
source's fingerprint: other files, or another part of them, have another folder.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sgmae_jax.data.errors import BadImage, DataError
from sgmae_jax.data.source import Example, Source, digest

# Part of the folder's name; to be raised whenever the same file means other pixels.
_FORMAT = 1
_INDEX, _PIXELS = "index.npy", "pixels"
_AHEAD = 64


class Cached:
    """A source whose decoded pixels are kept on disk; what else it tells is its own.

    The first one made reads everything; other processes that want the same wait for
    it. Bad images are not kept: they are asked of the source each time, and are as bad
    as it says. Of `Example` the image, the label and the segments are kept.

    Args:
        source: of image files.
        folder: where the caches of all sources lie; made if it is not there.
        channels: of the images, C.

    Raises:
        DataError: the folder cannot be written or is full, or what lies there is
            damaged.
    """

    name: str
    classes: tuple[str, ...]
    pixel_classes: tuple[str, ...]

    def __init__(self, source: Source, folder: str, *, channels: int):
        self._source = source
        self._channels = channels
        name = digest((_FORMAT, channels, source.fingerprint()))
        place = pathlib.Path(folder).expanduser() / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place.with_suffix(".lock"), "wb") as lock:
                # Given back with the file, also by a process that is killed.
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not place.is_dir():
                    self._build(place)
            # Rows: offset of the image in bytes (-1: bad), height, width, label.
            self._index = np.load(place / _INDEX)
            self._pixels = np.memmap(place / _PIXELS, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise DataError(f"data.cache {folder!r}: {error}") from error
        # One byte ends the file, since an empty one cannot be mapped.
        if len(self._pixels) != self._end() + 1 or len(self._index) != len(source):
            raise DataError(
                f"data.cache {folder!r}: {name} is damaged; remove that folder"
            )

    def __getattr__(self, name: str) -> Any:
        # Of an object that is being copied or unpickled nothing is there yet.
        if name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        offset, height, width, label = map(int, self._index[index])
        if offset < 0:
            return self._source[index]
        middle = offset + height * width * self._channels
        image = self._pixels[offset:middle].reshape(height, width, self._channels)
        item: Example = {"image": np.asarray(image), "label": label}
        if self._source.pixel_classes:
            segments = self._pixels[middle : middle + height * width]
            item["segments"] = np.asarray(segments.reshape(height, width))
        return item

    def fingerprint(self) -> str:
        return self._source.fingerprint()

    def _end(self) -> int:
        """Bytes of all pixels."""
        good = self._index[self._index[:, 0] >= 0]
        layers = self._channels + bool(self._source.pixel_classes)
        return int((good[:, 1] * good[:, 2]).sum()) * layers

    def _build(self, place: pathlib.Path) -> None:
        # What a killed process leaves is a hidden folder that nobody reads.
        partial = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
        try:
            with open(partial / _PIXELS, "wb") as file:
                index = self._write(file)
                file.write(b"\0")
                file.flush()
                os.fsync(file.fileno())
            np.save(partial / _INDEX, np.array(index, np.int64).reshape(-1, 4))
            os.replace(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write(self, file: Any) -> list[tuple[int, int, int, int]]:
        index: list[tuple[int, int, int, int]] = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            # In parts, or decoded images would pile up in front of a slow disk.
            for first in range(0, len(self._source), _AHEAD):
                last = min(first + _AHEAD, len(self._source))
                for item in pool.map(self._attempt, range(first, last)):
                    if item is None:
                        index.append((-1, 0, 0, 0))
                        continue
                    image = np.asarray(item["image"])
                    height, width = image.shape[:2]
                    index.append((file.tell(), height, width, item["label"]))
                    file.write(image.tobytes())
                    if self._source.pixel_classes:
                        file.write(np.asarray(item["segments"]).tobytes())
        return index

    def _attempt(self, index: int) -> Example | None:
        try:
            return self._source[index]
        except BadImage:
            return None
