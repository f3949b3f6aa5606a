"""The position table by its definition, on square and rectangular grids."""

import math

import numpy as np
import pytest

from sgmae_jax.models import sincos_table


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (1, 4)])
def test_definition(grid):
    width = 12
    table = sincos_table(grid, width)
    assert table.dtype == np.float64
    assert table.shape == (1 + grid[0] * grid[1], width)
    np.testing.assert_array_equal(table[0], 0)
    quarter = width // 4
    for row in range(grid[0]):
        for column in range(grid[1]):
            got = table[1 + row * grid[1] + column]
            for i in range(quarter):
                rate = 10000 ** (-i / quarter)
                expected = [
                    math.sin(column * rate),
                    math.cos(column * rate),
                    math.sin(row * rate),
                    math.cos(row * rate),
                ]
                np.testing.assert_allclose(got[i::quarter], expected, atol=1e-15)


def test_shared_table_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        sincos_table((2, 2), 8)[0, 0] = 1


def test_width_must_divide():
    with pytest.raises(ValueError, match="10"):
        sincos_table((2, 2), 10)
