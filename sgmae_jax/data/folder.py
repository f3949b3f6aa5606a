"""Class folders as a source, on disk or inside a zip or tar."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.files import Files, open_files
from sgmae_jax.data.images import decode_image, decode_picture
from sgmae_jax.data.source import Example, digest

SPLITS = ("train", "test", "val", "validation")
UNLABELLED = "unlabelled"


def _common_root(names: list[str]) -> str:
    """Returns the folder below which splits, classes or images begin.

    A lone folder is passed through if it is no split and holds folders with images:
    one that holds images only is taken for the single class.
    """
    root = ""
    while True:
        head = names[0][len(root) :].split("/", 1)[0]
        inside = f"{root}{head}/"
        lone = all(name.startswith(inside) for name in names)
        deep = any("/" in name[len(inside) :] for name in names)
        if head in SPLITS or not (lone and deep):
            return root
        root = inside


def _splits_present(names: list[str]) -> list[str]:
    """Returns the split folders at the top, [] if the top level is classes.

    "train" may also be a class (a vehicle): a folder of that name is a split if
    nothing but splits stands beside it, or if there are folders below it.
    """
    heads = {name.split("/", 1)[0] for name in names if "/" in name}
    splits = [split for split in SPLITS if split in heads]
    nested = any(
        name.count("/") >= 2 and name.split("/", 1)[0] in splits for name in names
    )
    return splits if nested or heads == set(splits) else []


def find_split(files: Files, path: str, split: str) -> tuple[str, list[str], list[str]]:
    """The layout of a folder or archive in which a split is asked for.

    Args:
        files: what it holds.
        path: as the user gave it, for messages.
        split: which must be there; "train" is all, where there are no split folders.

    Returns:
        (what all names begin with, the names behind it in order, the splits found)

    Raises:
        DataError: no images, no such split.
    """
    names = sorted(files.names())
    if not names:
        raise DataError(f"path {path!r} holds no images (.jpg, .png, .webp, …)")
    root = _common_root(names)
    rests = [name[len(root) :] for name in names]
    splits = _splits_present(rests)
    if split not in (splits or ["train"]):
        there = ", ".join(splits) or "train (there are no split folders)"
        raise DataError(f"path {path!r} has no split {split!r}; it has {there}")
    return root, rests, splits


def _class_of(name: str) -> str | None:
    """Returns the first folder of a name, None for an image beside the folders."""
    return name.split("/", 1)[0] if "/" in name else None


class Folder:
    """Images in class folders: [root/][split/]class/…/image.

    The splits are folders named train, test, val or validation; without any, all is
    "train". Classes are counted over all splits, in sorted order, so that labels mean
    the same in each. Images beside class folders are left out; a split without class
    folders has label -1, and its class is "unlabelled" if no split has classes.
    Images are in the order of their names.

    Args:
        path: a folder, .zip or .tar; archives are read in place.
        split: one of the splits found.
        channels: 1, 3 or 4.
        pictures: leave RGB images with Pillow, see `decode_picture`.

    Raises:
        DataError: nothing at `path`, no images, no such split, an unsafe archive.
    """

    pixel_classes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        *,
        split: str = "train",
        channels: int = 3,
        pictures: bool = False,
    ):
        self._files = open_files(path)
        root, rests, splits = find_split(self._files, path, split)
        found: set[str] = set()
        for prefix in [f"{present}/" for present in splits] or [""]:
            inside = [rest[len(prefix) :] for rest in rests if rest.startswith(prefix)]
            found.update(name for name in map(_class_of, inside) if name)
        prefix = f"{split}/" if splits else ""
        mine = [rest[len(prefix) :] for rest in rests if rest.startswith(prefix)]
        labelled = [name for name in mine if _class_of(name)]
        self.name = pathlib.Path(path).name
        self.classes = tuple(sorted(found)) or (UNLABELLED,)
        self._split = split
        self._decode: Callable[..., Any]
        self._decode = functools.partial(decode_image, channels=channels)
        if pictures and channels == 3:
            self._decode = decode_picture
        self._prefix = root + prefix
        self._items = labelled or mine
        index = {name: label for label, name in enumerate(self.classes)}
        self._labels = [
            index[name] if (name := _class_of(item)) else -1 for item in self._items
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        name = self._prefix + self._items[index]
        image = self._decode(self._files.read(name), name=name)
        return {"image": image, "label": self._labels[index]}

    def fingerprint(self) -> str:
        # Not the name of the folder or archive: a moved or unpacked data set is the
        # same one.
        sizes = (self._files.size(self._prefix + item) for item in self._items)
        fields = ("folder", self._split, len(self), *self.classes)
        return digest((*fields, *self._items, *sizes))
