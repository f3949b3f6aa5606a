"""Folders, zips and tars under one face: names of image files, sizes, bytes."""

from __future__ import annotations

import os
import pathlib
import posixpath
import stat
import tarfile
import threading
import zipfile
from typing import Protocol

from sgmae_jax.data.errors import BadImage, DataError
from sgmae_jax.data.images import SUFFIXES

# No image of a data set is this large; a damaged or hostile header may claim it.
MAX_BYTES = 2**28
COMPRESSED_TARS = (
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
)


class Files(Protocol):
    """Files by relative name, "/" between folders; reading is thread-safe.

    `names` lists the image files alone; of any other one must know the name.
    """

    def names(self) -> list[str]: ...

    def has(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def read(self, name: str) -> bytes: ...


def open_files(path: str) -> Files:
    """Opens a folder, a .zip or a .tar, whichever is at `path`."""
    place = pathlib.Path(path)
    if not path:
        raise DataError("a path is needed: a folder, a .zip or a .tar with images")
    if not place.exists():
        raise DataError(f"path {path!r} does not exist")
    if place.is_dir():
        return Disk(place)
    lower = place.name.lower()
    if lower.endswith(COMPRESSED_TARS):
        raise DataError(
            f"path {path!r} is a compressed tar, which has no random access: "
            "give the plain .tar, a .zip or the unpacked folder"
        )
    try:
        if lower.endswith(".zip"):
            return Zip(place)
        if lower.endswith(".tar"):
            return Tar(place)
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"path {path!r} cannot be read: {error}") from error
    raise DataError(f"path {path!r} is neither a folder nor a .zip nor a .tar")


def _is_image(name: str) -> bool:
    """Whether a relative name is an image's; hidden files and folders are not."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and posixpath.splitext(name)[1].lower() in SUFFIXES


def _check_member(archive: pathlib.Path, name: str) -> str:
    """Returns a member's plain relative name; refuses one that leaves the archive."""
    unix = name.replace("\\", "/")
    absolute = unix.startswith("/") or pathlib.PureWindowsPath(unix).drive
    if absolute or ".." in unix.split("/"):
        raise DataError(f"{archive.name} has the member {name!r}, which leaves it")
    return posixpath.normpath(unix)


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise BadImage(name, f"{size} bytes is more than {MAX_BYTES}")


class Disk:
    """A folder; links are followed, as data sets are often made of them."""

    def __init__(self, root: pathlib.Path):
        self._root = root

    def names(self) -> list[str]:
        found, seen = [], set()
        for folder, folders, files in os.walk(self._root, followlinks=True):
            where = os.stat(folder)
            # A link to a folder above would else be walked round and round.
            if (where.st_dev, where.st_ino) in seen:
                folders.clear()
                continue
            seen.add((where.st_dev, where.st_ino))
            folders.sort()
            relative = pathlib.Path(folder).relative_to(self._root)
            found += [(relative / file).as_posix() for file in files]
        return [name for name in found if _is_image(name)]

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def size(self, name: str) -> int:
        try:
            return (self._root / name).stat().st_size
        except OSError:
            return -1

    def read(self, name: str) -> bytes:
        try:
            with open(self._root / name, "rb") as file:
                _check_size(name, os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            raise BadImage(name, error.strerror or str(error)) from error


class Zip:
    """A zip archive, read in place; links in it are left out."""

    def __init__(self, path: pathlib.Path):
        self._archive = zipfile.ZipFile(path)
        self._lock = threading.Lock()
        self._members = {}
        for member in self._archive.infolist():
            name = _check_member(path, member.filename)
            if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
                continue
            if member.flag_bits & 1:
                raise DataError(f"{path.name} is encrypted (member {name!r})")
            self._members[name] = member

    def names(self) -> list[str]:
        return [name for name in self._members if _is_image(name)]

    def has(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        _check_size(name, self.size(name))
        try:
            # One lock around it all: ZipFile counts its open members without one.
            with self._lock:
                return self._archive.read(self._members[name])
        # Damaged members: zlib.error, EOFError, NotImplementedError, struct.error, …
        except Exception as error:
            raise BadImage(name, f"{type(error).__name__}: {error}") from error


class Tar:
    """An uncompressed tar, indexed once and read in place; links are left out."""

    def __init__(self, path: pathlib.Path):
        self._members: dict[str, tuple[int, int]] = {}
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = _check_member(path, member.name)
                # A sparse file's bytes do not lie in one piece.
                if member.isreg() and not member.issparse():
                    self._members[name] = (member.offset_data, member.size)
        self._file = open(path, "rb")
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        return [name for name in self._members if _is_image(name)]

    def has(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._members[name][1]

    def read(self, name: str) -> bytes:
        offset, size = self._members[name]
        _check_size(name, size)
        try:
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(size)
        except OSError as error:
            raise BadImage(name, error.strerror or str(error)) from error
        if len(data) < size:
            raise BadImage(name, "the archive ends within this file")
        return data
