"""Block masks: rectangles, in the sizes and places asked for."""

import numpy as np
import pytest

from sgmae_jax.masking import Context, block_mask
from sgmae_jax.masking.block import _shapes
from tests.masking.generators import edges, grids_of, keys_of, make


def sides(grid, packed):
    """(height, width) of packed shapes."""
    return np.stack(np.divmod(packed, grid[1] + 1), axis=1)


@pytest.mark.parametrize("grid, ratio", [((14, 14), 0.75), ((10, 20), 0.4)])
def test_blocks_have_far_fewer_edges_than_random_masks(grid, ratio):
    keys = keys_of(0, range(64))
    block = edges(grids_of(make("block", keys, grid, ratio).hidden, grid))
    random = edges(grids_of(make("random", keys, grid, ratio).hidden, grid))
    assert block.max() < random.min()
    assert block.mean() < 0.4 * random.mean()


def test_a_mask_of_one_rectangle_is_that_rectangle():
    # Every rectangle has 16 = hidden tokens, so the first alone is the mask.
    mask = block_mask(
        keys_of(0, range(200)),
        Context(grid=(8, 8)),
        ratio=0.75 / 3,
        area=(0.25, 0.25),
        aspect=(1.0, 1.0),
    )
    corners = set()
    for hidden in grids_of(mask.hidden, (8, 8)):
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        assert len(rows) == len(columns) == 4
        assert hidden[np.ix_(rows, columns)].all()
        corners.add((rows[0], columns[0]))
    assert len(corners) == 25  # 5 x 5 places, all of them drawn


def test_what_no_rectangle_covers_is_hidden_by_lines_from_each_side():
    # One rectangle of 16 tokens where 32 are wanted: two lines or more fill up.
    mask = block_mask(
        keys_of(0, range(64)),
        Context(grid=(8, 8)),
        ratio=0.5,
        area=(0.25, 0.25),
        aspect=(1.0, 1.0),
        rectangles=1,
    )
    sides = set()
    for hidden in grids_of(mask.hidden, (8, 8)):
        found = {
            "top": hidden[:2].all(),
            "bottom": hidden[-2:].all(),
            "left": hidden[:, :2].all(),
            "right": hidden[:, -2:].all(),
        }
        assert sum(found.values()) == 1
        sides |= {side for side, there in found.items() if there}
    assert len(sides) == 4


@pytest.mark.parametrize("grid", [(14, 14), (6, 24), (24, 6), (1, 30)])
def test_shapes_have_the_area_and_the_aspect_asked_for(grid):
    tokens = grid[0] * grid[1]
    shapes = sides(grid, _shapes(grid, tokens, (0.1, 0.3), (0.5, 2.0)))
    assert (shapes >= 1).all() and (shapes <= grid).all()
    share = shapes.prod(1) / tokens
    assert share.mean() == pytest.approx(0.2, rel=0.1)
    if min(grid) > 6:  # rounding to whole tokens is small
        slant = shapes[:, 0] / shapes[:, 1]
        assert slant.min() > 0.35 and slant.max() < 2.9
        assert np.exp(np.log(slant).mean()) == pytest.approx(1, abs=0.1)


def test_no_rectangle_is_larger_than_what_is_hidden():
    shapes = sides((14, 14), _shapes((14, 14), 20, (0.08, 0.4), (1.0, 1.0)))
    assert shapes.prod(1).max() <= 20


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
def test_the_rectangles_suffice_or_whole_lines_fill_up(share):
    keys = keys_of(0, range(64))
    grid = (32, 32)
    hidden = grids_of(make("block", keys, grid, share).hidden, grid)
    random = grids_of(make("random", keys, grid, share).hidden, grid)
    assert edges(hidden).mean() < 0.6 * edges(random).mean()


@pytest.mark.parametrize(
    "options, word",
    [
        ({"area": (0.0, 0.4)}, "area"),
        ({"area": (0.5, 0.4)}, "area"),
        ({"area": (0.5, 1.4)}, "area"),
        ({"area": (float("nan"), 0.4)}, "area"),
        ({"aspect": (0.0, 1.0)}, "aspect"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"aspect": (1.0, float("inf"))}, "aspect"),
        ({"rectangles": 0}, "rectangles"),
        ({"rectangles": 4096}, "rectangles"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        block_mask(keys_of(0, [0]), Context(grid=(4, 4)), ratio=0.5, **options)


def one_rectangle_after_the_other(rng, size, wanted):
    """BEiT's loop: draw, reject what does not fit, until enough is hidden."""
    hidden, left = np.zeros((size, size), bool), wanted
    for _ in range(1000):
        area = rng.uniform(*sorted((16, left)))
        slant = np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
        height = round(np.sqrt(area * slant))
        width = round(np.sqrt(area / slant))
        if not (0 < height < size and 0 < width < size):
            continue
        top = rng.integers(size - height + 1)
        start = rng.integers(size - width + 1)
        block = hidden[top : top + height, start : start + width]
        new = block.size - block.sum()
        if 0 < new <= left:
            block[...] = True
            left -= new
        if left < 4:
            break
    return hidden


@pytest.mark.parametrize("wanted", [75, 147])
def test_masks_are_like_those_of_the_sequential_algorithm(wanted):
    rng = np.random.default_rng(0)
    loop = np.stack(
        [one_rectangle_after_the_other(rng, 14, wanted) for _ in range(400)]
    )
    keys = keys_of(0, range(400))
    mask = make("block", keys, (14, 14), wanted / 196)
    ours = grids_of(mask.hidden, (14, 14))
    assert edges(ours).mean() == pytest.approx(edges(loop).mean(), rel=0.15)
    # Both hide the middle most and corners least, about equally often.
    assert np.abs(ours.mean(0) - loop.mean(0)).max() < 0.15
    assert np.corrcoef(ours.mean(0).ravel(), loop.mean(0).ravel())[0, 1] > 0.97
