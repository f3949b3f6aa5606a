"""Grid masks: a regular lattice at any ratio."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import Context, grid_mask, num_keep
from tests.masking.generators import grids_of, keys_of, make, properties, ratios


@pytest.mark.parametrize("grid", [(14, 14), (7, 8), (6, 10)])
def test_three_quarters_is_one_token_of_every_two_by_two(grid):
    tokens = grid[0] * grid[1]
    ratio = 1 - ((grid[0] + 1) // 2) * ((grid[1] + 1) // 2) / tokens
    mask = make("grid", keys_of(0, range(3)), grid, ratio)
    for hidden in grids_of(mask.hidden, grid):
        assert not hidden[::2, ::2].any()
        assert (~hidden).sum() == num_keep(tokens, ratio)


def test_one_half_is_a_checkerboard():
    (hidden,) = grids_of(make("grid", keys_of(0, [0]), (6, 8), 0.5).hidden, (6, 8))
    row, column = np.indices((6, 8))
    np.testing.assert_array_equal(hidden, (row + column) % 2 == 1)


@properties
@given(
    ratio=ratios,
    cells=st.sampled_from([(1, 1), (2, 5), (4, 3)]),
    cell=st.sampled_from([(1, 1), (2, 2), (3, 3), (2, 3)]),
)
def test_every_whole_cell_keeps_the_same_number_give_or_take_one(ratio, cells, cell):
    grid = (cells[0] * cell[0], cells[1] * cell[1])
    mask = grid_mask(keys_of(0, [0]), Context(grid=grid), ratio=ratio, cell=cell)
    (hidden,) = grids_of(mask.hidden, grid)
    per_cell = (~hidden).reshape(cells[0], cell[0], cells[1], cell[1]).sum((1, 3))
    assert per_cell.max() - per_cell.min() <= 1


@pytest.mark.parametrize("ratio, apart", [(15 / 16, 4), (63 / 64, 8)])
def test_few_tokens_lie_on_a_coarser_lattice(ratio, apart):
    (hidden,) = grids_of(
        make("grid", keys_of(0, [0]), (16, 16), ratio).hidden, (16,) * 2
    )
    np.testing.assert_array_equal(
        np.argwhere(~hidden), np.argwhere(~hidden[::apart, ::apart]) * apart
    )
    assert not hidden[::apart, ::apart].any()


def test_eight_of_nine_with_cells_of_three_by_three():
    mask = grid_mask(keys_of(0, [0]), Context(grid=(9, 9)), ratio=8 / 9, cell=(3, 3))
    visible = ~grids_of(mask.hidden, (9, 9))[0]
    assert visible[::3, ::3].all() and visible.sum() == 9


def test_without_an_offset_all_masks_are_one():
    hidden = make("grid", keys_of(0, range(9)), (14, 14), 0.6).hidden
    assert len(np.unique(hidden, axis=0)) == 1


def test_a_random_offset_takes_every_place_of_the_cell():
    hidden = make("grid offset", keys_of(0, range(64)), (14, 14), 0.75).hidden
    kept = {
        tuple(np.argwhere(~one)[0])
        for one in grids_of(np.unique(hidden, axis=0), (14, 14))
    }
    assert kept == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("cell", [(0, 2), (2, -1)])
def test_bad_cells_are_named(cell):
    with pytest.raises(ValueError, match="cell"):
        grid_mask(keys_of(0, [0]), Context(grid=(4, 4)), ratio=0.5, cell=cell)
