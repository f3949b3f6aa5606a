"""How the items of a source become rows of batches: for images, and for any data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sgmae_jax.data.augment import (
    AugmentConfig,
    Shown,
    eval_image,
    shown_segments,
    train_image,
    whole_image,
)
from sgmae_jax.data.errors import DataError
from sgmae_jax.data.source import Example

# One row of a batch: arrays and numbers by name.
Row = dict[str, Any]


class Rows(Protocol):
    """Makes rows of items, and batches of rows; called from several threads at once.

    Attributes:
        unit: what an item is called in messages, in the plural.
    """

    @property
    def unit(self) -> str: ...

    def train(self, item: Any, rng: np.random.Generator) -> Row:
        """A row to train on; all its chance comes from `rng`."""

    def plain(self, item: Any) -> Row:
        """The row of a held-out item, without chance."""

    def whole(self, item: Any) -> Row:
        """A row with all of an item in it, without chance."""

    def join(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """A batch, one entry of every array a row; rows may differ in size.

        Of several processes each joins its own rows, and all must make the same
        shapes.
        """


def stack(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Rows of equal shapes as a batch; whole numbers become int32."""
    batch = {}
    for name in rows[0]:
        column = [row[name] for row in rows]
        whole = isinstance(column[0], int)
        batch[name] = np.array(column, np.int32) if whole else np.stack(column)
    return batch


@dataclass(frozen=True)
class ImageRows:
    """Images as batches of one size.

    The batch: image u8[B,h,w,C], pixels from 0 to 255; label i32[B], class, -1 where
    unknown; view f32[B,2,2], where in the source image the shown one lies, see `Shown`;
    with `segments` also segments u8[B,h,w], class of every pixel shown; with `pairs`
    also other_image and other_view, a second crop drawn like the first.

    Attributes:
        image_size: (h, w) in pixels, >= 1.
        augment: how images to train on vary.
        segments: whether there are classes of pixels; the source must have them.
        pairs: whether there is a second random crop; held-out images have none.
    """

    image_size: tuple[int, int]
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    segments: bool = False
    pairs: bool = False
    unit: str = "images"

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise DataError(f"image_size {self.image_size} must be at least 1")

    def train(self, item: Example, rng: np.random.Generator) -> Row:
        """A random crop, or two."""
        shown = train_image(rng, item["image"], self.image_size, self.augment)
        row = self._row(item, shown)
        if self.pairs:
            other = train_image(rng, item["image"], self.image_size, self.augment)
            row |= {"other_image": other.image, "other_view": other.view}
        return row

    def plain(self, item: Example) -> Row:
        """The centre, as it is evaluated."""
        return self._row(item, eval_image(item["image"], self.image_size))

    def whole(self, item: Example) -> Row:
        """All of the image, stretched to the size."""
        return self._row(item, whole_image(item["image"], self.image_size))

    def join(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Stacked."""
        return stack(rows)

    def _row(self, item: Example, shown: Shown) -> Row:
        row = {"image": shown.image, "label": int(item["label"]), "view": shown.view}
        if self.segments:
            row["segments"] = shown_segments(
                item["segments"], shown.view, self.image_size
            )
        return row
