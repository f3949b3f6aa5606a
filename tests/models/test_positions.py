"""The position table by its definition, on square and rectangular grids."""

import math

import numpy as np
import pytest

from sgmae_jax.models import resize_positions, sincos_table


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


def test_resizing_to_the_same_grid_changes_nothing():
    table = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(table, (3, 4), (3, 4)), table)


@pytest.mark.parametrize("special", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 8), (7, 2), (1, 1)])
def test_resizing_keeps_special_rows_constants_and_axes(special, size):
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.arange(20), 5)
    tokens = np.stack([np.ones(20), rows, columns], 1)
    table = np.concatenate([rng.normal(size=(special, 3)), tokens])
    resized = resize_positions(table, (4, 5), size)
    np.testing.assert_array_equal(resized[:special], table[:special])
    image = resized[special:].reshape(*size, 3)
    np.testing.assert_allclose(image[..., 0], 1, atol=1e-12)
    # What varies along one axis alone still does.
    np.testing.assert_allclose(image[..., 1], image[:, :1, 1].repeat(size[1], 1))
    np.testing.assert_allclose(image[..., 2], image[:1, :, 2].repeat(size[0], 0))


def test_a_table_too_short_for_its_grid_is_refused():
    with pytest.raises(ValueError, match="8 rows is none for a grid of \\(3, 3\\)"):
        resize_positions(np.zeros((8, 4)), (3, 3), (4, 4))
