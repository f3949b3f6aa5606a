"""Named sizes."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Width, number of blocks and attention heads of a transformer."""

    width: int
    depth: int
    heads: int


# Reference: Dosovitskiy et al. 2021 (B, L, H), Touvron et al. 2021 (Ti, S).
PRESETS = {
    "vit_ti": Size(192, 12, 3),
    "vit_s": Size(384, 12, 6),
    "vit_b": Size(768, 12, 12),
    "vit_l": Size(1024, 24, 16),
    "vit_h": Size(1280, 32, 16),
}

# The authors' decoder, the same for every encoder.
DECODER = Size(512, 8, 16)


def encoder_size(
    preset: str, width: int | None, depth: int | None, heads: int | None
) -> Size:
    """A preset's size, or a free one; what is given here goes before the preset.

    Args:
        preset: a name in `PRESETS`, or empty where all three are given.
        width: D, or None.
        depth: number of blocks, or None.
        heads: attention heads, or None.
    """
    given = {"width": width, "depth": depth, "heads": heads}
    wished = {name: value for name, value in given.items() if value is not None}
    return PRESETS[preset]._replace(**wished) if preset else Size(**wished)
