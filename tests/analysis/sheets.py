"""Cuts drawn sheets into the images that they are made of."""

import numpy as np

from sgmae_jax.analysis import pictures

SIDE = 160  # of square images whose side divides it


def cut(drawn, titles, rows):
    """Title -> u8[rows, SIDE, SIDE, 3], of a sheet with these columns."""
    width = (drawn.shape[1] - pictures._GAP) // len(titles)
    top = pictures._TEXT + 2 * pictures._GAP
    found = {}
    for index, title in enumerate(titles):
        left = pictures._GAP + index * width + (width - pictures._GAP - SIDE) // 2
        found[title] = np.stack(
            [
                drawn[y : y + SIDE, left : left + SIDE]
                for y in (top + row * (SIDE + pictures._GAP) for row in range(rows))
            ]
        )
    return found


def reduced(column, side):
    """The images of a column in their own size."""
    factor = SIDE // side
    return column[:, factor // 2 :: factor, factor // 2 :: factor]
