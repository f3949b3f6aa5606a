"""Image/mask folder pairs as a source, on disk or inside a zip or tar."""

from __future__ import annotations

import functools
import pathlib
import posixpath

from sgmae_jax.data.errors import BadImage, DataError
from sgmae_jax.data.files import Files, open_files
from sgmae_jax.data.folder import UNLABELLED, find_split
from sgmae_jax.data.images import decode_image
from sgmae_jax.data.segments import count_classes, read_segments
from sgmae_jax.data.source import UNLABELLED_PIXEL, Example, digest

CLASSES = "classes.txt"
_IMAGES, _MASKS = "images/", "masks/"


def _mask_of(image: str) -> str:
    return _MASKS + posixpath.splitext(image.removeprefix(_IMAGES))[0] + ".png"


class Pairs:
    """Images and the classes of their pixels.

    To [root/][split/]images/NAME.jpg (or any other format) belongs
    [root/][split/]masks/NAME.png, where NAME may hold folders; splits are as in
    `Folder`. A mask holds an index a pixel; 255 is unlabelled. The classes are named
    in [root/]classes.txt, one a line from index 0 on; without it all masks of all
    splits are read once to count them. An image without its mask is a bad one. There
    are no classes of images.

    Args:
        path: a folder, .zip or .tar; archives are read in place.
        split: one of the splits found.
        channels: 1, 3 or 4.

    Raises:
        DataError: nothing at `path`, no such split, not one pair, a classes.txt that
            does not name 1 to 255 classes, an unsafe archive.
    """

    classes = (UNLABELLED,)

    def __init__(self, path: str, *, split: str = "train", channels: int = 3):
        self._files = open_files(path)
        root, rests, splits = find_split(self._files, path, split)
        folder = f"{split}/" if splits else ""
        mine = [rest[len(folder) :] for rest in rests if rest.startswith(folder)]
        self._items = [name for name in mine if name.startswith(_IMAGES)]
        self._masks = {name for name in mine if name.startswith(_MASKS)}
        complete = sum(_mask_of(item) in self._masks for item in self._items)
        if not complete:
            raise DataError(
                f"path {path!r}: of {len(self._items)} images and {len(self._masks)} "
                f"masks of the split {split!r} no two are a pair; to images/NAME.jpg "
                "belongs masks/NAME.png"
            )
        self.name = pathlib.Path(path).name
        self._prefix = root + folder
        self._split = split
        self._channels = channels
        self.pixel_classes = _named_classes(self._files, root + CLASSES)
        if not self.pixel_classes:
            folders = tuple(f"{one}/{_MASKS}" for one in splits) or (_MASKS,)
            masks = [root + rest for rest in rests if rest.startswith(folders)]
            read = self._files.read
            self.pixel_classes = count_classes(
                ((mask, functools.partial(read, mask)) for mask in masks),
                source=f"path {path!r}",
            )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        item = self._items[index]
        name, mask = self._prefix + item, self._prefix + _mask_of(item)
        if _mask_of(item) not in self._masks:
            raise BadImage(name, f"has no mask {mask}")
        image = decode_image(self._files.read(name), name=name, channels=self._channels)
        segments = read_segments(
            self._files.read(mask),
            name=mask,
            size=image.shape[:2],
            classes=len(self.pixel_classes),
        )
        return {"image": image, "label": -1, "segments": segments}

    def fingerprint(self) -> str:
        masks = [_mask_of(item) for item in self._items]
        sizes = (
            self._files.size(self._prefix + file)
            for file in (*self._items, *(mask for mask in masks if mask in self._masks))
        )
        fields = ("pairs", self._split, len(self), *self.pixel_classes)
        return digest((*fields, *self._items, *sizes))


def _named_classes(files: Files, name: str) -> tuple[str, ...]:
    """The lines of a classes.txt; nothing if it is not there."""
    if not files.has(name):
        return ()
    try:
        lines = files.read(name).decode().rstrip().splitlines()
    except (UnicodeDecodeError, BadImage) as error:
        raise DataError(f"{name} cannot be read as UTF-8: {error}") from None
    classes = tuple(line.strip() for line in lines)
    if not 1 <= len(classes) <= UNLABELLED_PIXEL or not all(classes):
        raise DataError(
            f"{name} must name 1 to {UNLABELLED_PIXEL} classes, one a line and none "
            f"empty; it has {len(classes)} lines"
        )
    return classes
