"""`open_source`: from the words in a config to a source."""

from __future__ import annotations

import re
import zlib

import numpy as np

from sgmae_jax.data.cache import Cached
from sgmae_jax.data.errors import DataError
from sgmae_jax.data.folder import Folder
from sgmae_jax.data.images import MODES
from sgmae_jax.data.pairs import Pairs
from sgmae_jax.data.source import InMemory, Items, Source, Subset
from sgmae_jax.data.synthetic import Synthetic, SyntheticConfig
from sgmae_jax.data.tfds import Tfds

_BOUND = r"-?\d+|\d+%"
_SPLIT = re.compile(rf"([^\[\]:]+)(?:\[({_BOUND})?:({_BOUND})?\])?")


def parse_split(split: str) -> tuple[str, str, str] | None:
    """Returns (name, first, last) of "name" or "name[first:last]", None if neither.

    The bounds are whole numbers, percentages or empty: "train[:90%]".
    """
    match = _SPLIT.fullmatch(split)
    return (match[1], match[2] or "", match[3] or "") if match else None


def _bound(text: str, length: int) -> int | None:
    if text.endswith("%"):
        return int(text[:-1]) * length // 100
    return int(text) if text else None


def bounds(first: str, last: str, length: int) -> tuple[int, int]:
    """The part [first:last], bounds as `parse_split` gives them, of so many items."""
    low, high, _ = slice(_bound(first, length), _bound(last, length)).indices(length)
    return low, high


def slice_source(source: Items, first: str, last: str, *, name: str) -> Subset:
    """Returns the part [first:last] of a source, along a fixed shuffled order.

    Shuffled, as folders come sorted by class; fixed, so that the parts of one split
    are the same in every run, "[:90%]" and "[90%:]" are disjoint, and "[:100]" is the
    start of "[:1000]". Bounds past the end are cut, as in Python.

    Raises:
        DataError: the part is empty.
    """
    length = len(source)
    order = np.random.default_rng([zlib.crc32(b"split"), length]).permutation(length)
    indices = order[slice(*bounds(first, last, length))]
    if not len(indices):
        raise DataError(f"split {name!r} is empty: there are {length} items to slice")
    return Subset(source, indices, name=f"{source.name}/{name}")


def open_source(
    spec: str,
    *,
    path: str = "",
    split: str = "train",
    seed: int = 0,
    channels: int = 3,
    in_memory: bool = False,
    pictures: bool = False,
    cache: str = "",
    image_size: tuple[int, int] = (32, 32),
    synthetic: SyntheticConfig | None = None,
) -> Source:
    """Opens a data set.

    Args:
        spec: "synthetic", "folder", "pairs" or "tfds:name".
        path: the folder or archive of files; the TFDS data folder.
        split: a split's name, or a part such as "train[:90%]", "test[:1000]".
        seed: >= 0; which synthetic images. Files do not depend on it.
        channels: 1, 3 or 4.
        in_memory: whether to hold what has been decoded.
        pictures: leave the RGB images of a folder with Pillow: for what only crops and
            resizes them. Not with `in_memory` or `cache`, which hold arrays.
        cache: folder that keeps decoded pixels, see `Cached`; empty: none.
        image_size: (h, w) of synthetic images in pixels; files keep their own size.
        synthetic: how many synthetic images, and how they vary.

    Raises:
        DataError: anything named here is not there; one line says what is.
    """
    if channels not in MODES:
        raise DataError(f"channels must be one of {list(MODES)}, not {channels}")
    parsed = parse_split(split)
    if parsed is None:
        raise DataError(
            f"split {split!r} is neither a name nor a part such as 'train[:90%]'"
        )
    name, first, last = parsed
    source: Source
    if spec == "synthetic":
        source = Synthetic(
            split=name,
            seed=seed,
            image_size=image_size,
            channels=channels,
            config=synthetic or SyntheticConfig(),
        )
    elif spec == "folder":
        leave = pictures and not in_memory and not cache
        source = Folder(path, split=name, channels=channels, pictures=leave)
    elif spec == "pairs":
        source = Pairs(path, split=name, channels=channels)
    elif spec.startswith("tfds:") and spec != "tfds:":
        source = Tfds(
            spec.removeprefix("tfds:"), path=path, split=name, channels=channels
        )
    else:
        raise DataError(
            f"source {spec!r} is unknown: give 'synthetic', 'folder', 'pairs' or "
            "'tfds:name'"
        )
    if split != name:
        source = slice_source(source, first, last, name=split)
    if cache:
        if spec == "synthetic":
            raise DataError("data.cache keeps the pixels of files, not synthetic ones")
        source = Cached(source, cache, channels=channels)
    return InMemory(source) if in_memory else source
