"""The `Source` protocol, and the two wrappers every source can wear."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from sgmae_jax.data.errors import BadImage

# In `segments`: a pixel of no known class, which counts nowhere.
UNLABELLED_PIXEL = 255


class Example(TypedDict):
    """One item of a source.

    Attributes:
        image: pixels, 0 to 255; H and W may differ from item to item. An RGB image of
            Pillow where the source was opened with `pictures`.
        label: index into the source's `classes`, -1 where it is unknown.
        object_mask: True on the pixels of the object, where that is known.
        segments: class of every pixel, index into the source's `pixel_classes`, or
            `UNLABELLED_PIXEL`; where the source has such classes.
    """

    image: UInt8[np.ndarray, "H W C"] | Image.Image
    label: int
    object_mask: NotRequired[Bool[np.ndarray, "H W"]]
    segments: NotRequired[UInt8[np.ndarray, "H W"]]


class Items(Protocol):
    """Random access to items of any kind; the same ones on every machine and call.

    `__getitem__` is called from several threads at once, and raises `BadImage` for
    an item that cannot be used. `fingerprint` tells two data sets apart, without
    reading everything.
    """

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def fingerprint(self) -> str: ...


class Source(Items, Protocol):
    """Random access to images; `pixel_classes` is empty where pixels have none."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def pixel_classes(self) -> tuple[str, ...]: ...

    def __getitem__(self, index: int, /) -> Example: ...


def digest(fields: Iterable[object]) -> str:
    """Returns 32 hex digits that depend on every field and on their order."""
    state = hashlib.blake2b(digest_size=16)
    for field in fields:
        # File names need not be valid Unicode; a zero byte keeps fields apart.
        state.update(str(field).encode("utf-8", "surrogateescape") + b"\0")
    return state.hexdigest()


class Subset:
    """A source seen through a list of indices; what else it tells is the source's.

    Args:
        source: where the items come from.
        indices: which items, in which order.
        name: what to call the part.
    """

    classes: tuple[str, ...]
    pixel_classes: tuple[str, ...]

    def __init__(self, source: Items, indices: np.ndarray, *, name: str):
        self.name = name
        self._source = source
        self._indices = indices

    def names(self, index: int) -> Any:
        """What an item is called, where the source has names."""
        return self._source.names(int(self._indices[index]))  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        # Of an object that is being copied or unpickled nothing is there yet.
        if name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self._source[int(self._indices[index])]

    def fingerprint(self) -> str:
        chosen = hashlib.blake2b(self._indices.astype("<i8").tobytes())
        return digest((self._source.fingerprint(), len(self), chosen.hexdigest()))


class InMemory:
    """A source whose items are decoded when they are first read, and then held.

    Nothing waits for the whole of it: training begins while it fills. Bad images stay
    bad. Threads may read at the same time; two that want the same new item read it
    twice and hold it once.
    """

    name: str
    classes: tuple[str, ...]
    pixel_classes: tuple[str, ...]

    def __init__(self, source: Items):
        self._source = source
        self._items: list[Any] = [None] * len(source)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        item = self._items[index]
        if item is None:
            try:
                item = self._source[index]
            except BadImage as bad:
                # Kept without its traceback, which would keep the file's bytes.
                item = BadImage(bad.name, bad.reason)
            self._items[index] = item
        if isinstance(item, BadImage):
            raise BadImage(item.name, item.reason)
        return item

    def __getattr__(self, name: str) -> Any:
        if name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def fingerprint(self) -> str:
        return self._source.fingerprint()
