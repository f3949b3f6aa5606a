"""Maps kept by example: resampling in closed form, writing, reading, devices."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgmae_jax.masking import (
    Bank,
    empty_bank,
    invert,
    read_bank,
    resample,
    write_bank,
)
from tests.masking.generators import properties

GRIDS = [(1, 1), (1, 7), (14, 14), (12, 3)]
WHOLE = np.float32([[0, 1], [0, 1]])
MIRRORED = np.float32([[0, 1], [1, -1]])
grids = st.sampled_from(GRIDS)
resampled = jax.jit(resample)
written = jax.jit(write_bank)
read = jax.jit(read_bank)


def crop(top, left, height, width, flip=False):
    """The view of a box, in shares of the image."""
    across = (left + width, -width) if flip else (left, width)
    return np.float32([(top, height), across])


@st.composite
def crops(draw, smallest=0.05):
    sides = [draw(st.floats(smallest, 1)) for _ in range(2)]
    starts = [draw(st.floats(0, 1)) * (1 - side) for side in sides]
    return crop(*starts, *sides, flip=draw(st.booleans()))


def maps_on(grid, low=-1000, high=1000):
    # Subnormal numbers are 0 to many processors.
    values = st.floats(low, high, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, (2, *grid), elements=values)


def centres(size):
    return (np.arange(size) + 0.5) / size


def sampled(function, grid, view=WHOLE):
    """function(y, x) at the centres of the tokens of a view, f32[h, w]."""
    places = [
        offset + scale * centres(size)
        for (offset, scale), size in zip(view.astype(float), grid, strict=True)
    ]
    return function(*np.meshgrid(*places, indexing="ij")).astype(np.float32)


def through(maps, view):
    """One view for all."""
    return np.asarray(resampled(maps, np.broadcast_to(view, (len(maps), 2, 2))))


def bank_of(maps, step=0):
    maps = np.asarray(maps, np.float16)
    return Bank(jnp.asarray(maps), jnp.full(len(maps), step, jnp.int32))


def arrays(bank):
    return jax.tree.map(np.asarray, bank)


def assert_same(bank, other):
    for one, two in zip(bank, other, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


@properties
@given(data=st.data(), grid=grids)
def test_the_identity_changes_nothing_and_a_flip_reverses(data, grid):
    maps = data.draw(maps_on(grid))
    np.testing.assert_array_equal(through(maps, WHOLE), maps)
    np.testing.assert_array_equal(through(maps, MIRRORED), maps[:, :, ::-1])
    upside_down = MIRRORED[::-1]
    np.testing.assert_array_equal(through(maps, upside_down), maps[:, ::-1])


@properties
@given(view=crops(), grid=grids, slopes=st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_crop_of_a_ramp_is_the_ramp(view, grid, slopes):
    """Linear between the outermost centres, constant beyond."""

    def ramp(y, x):
        inner = [
            np.clip(axis, 0.5 / size, 1 - 0.5 / size)
            for axis, size in zip((y, x), grid, strict=True)
        ]
        return slopes[0] + slopes[1] * inner[0] + slopes[2] * inner[1]

    found = through(sampled(ramp, grid)[None], view)[0]
    np.testing.assert_allclose(found, sampled(ramp, grid, view), rtol=0, atol=1e-5)


@properties
@given(data=st.data(), grid=grids, view=crops(0.01), mirror=st.booleans())
def test_values_stay_in_the_range_of_the_map(data, grid, view, mirror):
    maps = data.draw(maps_on(grid))
    seen = through(maps, np.asarray(invert(view)) if mirror else view)
    slack = 1e-6 * np.abs(maps).max()
    assert seen.min() >= maps.min() - slack and seen.max() <= maps.max() + slack


@properties
@given(
    view=crops(), value=st.floats(-1, 1, width=32, allow_subnormal=False), grid=grids
)
def test_a_constant_map_stays_constant(view, value, grid):
    maps = np.full((2, *grid), value, np.float32)
    for way in (view, np.asarray(invert(view))):
        np.testing.assert_allclose(through(maps, way), maps, rtol=3e-7, atol=1e-37)


@properties
@given(view=crops(), y=st.floats(0, 1), x=st.floats(0, 1))
def test_the_inverse_leads_back(view, y, x):
    np.testing.assert_allclose(invert(invert(view)), view, rtol=1e-4, atol=1e-4)
    there = view[:, 0] + view[:, 1] * np.float32([y, x])
    back = np.asarray(invert(view))
    np.testing.assert_allclose(back[:, 0] + back[:, 1] * there, [y, x], atol=1e-4)


@pytest.mark.parametrize("view", [WHOLE, MIRRORED, MIRRORED[::-1]])
def test_what_mirrors_is_its_own_inverse(view):
    np.testing.assert_array_equal(invert(view), view)


def smooth(y, x):
    return np.sin(3 * y + 1) * np.cos(4 * x) + 0.5 * x


BOXES = [
    crop(0, 0, 1, 1),
    crop(0.3, 0.1, 0.6, 0.7),
    crop(0.0, 0.45, 0.45, 0.55, flip=True),
    crop(0.123, 0.321, 0.5, 0.5, flip=True),
]


@pytest.mark.parametrize("view", BOXES)
@pytest.mark.parametrize("grid", [(14, 14), (8, 20)])
def test_there_and_back_on_a_smooth_map(view, grid):
    """Bilinear errors are spacing^2 / 8 times the second derivatives, at most 25."""
    spacing = 1 / np.array(grid)
    tolerance = 2 * 25 * (spacing**2).sum() / 8
    maps = sampled(smooth, grid)[None]
    back = through(through(maps, view), np.asarray(invert(view)))
    y, x = np.meshgrid(*map(centres, grid), indexing="ij")
    ends = np.sort(np.stack((view[:, 0], view.sum(1))), axis=0)
    # Half a token of the view within its edges nothing is clamped.
    edge = np.abs(view[:, 1]) * spacing / 2
    (low_y, low_x), (high_y, high_x) = ends + np.stack((edge, -edge))
    inner = (y >= low_y) & (y <= high_y) & (x >= low_x) & (x <= high_x)
    assert inner.sum() >= 8
    assert np.abs(back - maps)[0][inner].max() < tolerance


@pytest.mark.parametrize("view", BOXES)
def test_it_is_cropping_a_fine_map_and_averaging(view):
    """The average of 60x60 points a token; the map is such averages itself.

    Of the second derivatives, at most 9 and 16, averaging a token of side s adds
    s^2 / 24 and bilinear interpolation s^2 / 8.
    """
    fine = (14 * 60, 14 * 60)

    def averaged(view):
        return sampled(smooth, fine, view).reshape(14, 60, 14, 60).mean((1, 3))

    found = through(averaged(WHOLE)[None], view)[0]
    expected = averaged(view)
    inner = (slice(None),) * 2
    if (view != WHOLE).any():
        inner = (slice(1, -1),) * 2
    tolerance = (9 + 16) / 14**2 * (1 / 24 + 1 / 8)
    assert np.abs(found - expected)[inner].max() < tolerance
    # What a crop without a map along with it would see.
    if (view != WHOLE).any():
        off = np.abs(averaged(WHOLE) - expected)[inner].mean()
        assert off > 20 * np.abs(found - expected)[inner].mean()


@pytest.mark.parametrize("grid", GRIDS)
def test_a_new_bank_knows_nothing(grid):
    bank = empty_bank(5, grid)
    assert bank.relevance.shape == (5, *grid) and bank.relevance.dtype == jnp.float16
    assert bank.written.tolist() == [-1] * 5 and bank.written.dtype == jnp.int32
    relevance, known = read(bank, jnp.arange(5), np.tile(WHOLE, (5, 1, 1)))
    assert relevance.shape == (5, grid[0] * grid[1]) and relevance.dtype == jnp.float32
    assert not relevance.any() and not known.any()


@properties
@given(data=st.data(), grid=grids, view=st.sampled_from([WHOLE, MIRRORED]))
def test_whole_images_are_read_as_written(data, grid, view):
    maps = data.draw(maps_on(grid)).astype(np.float16).astype(np.float32)
    ids, views = np.int32([3, 1]), np.stack((view, WHOLE))
    bank = written(empty_bank(4, grid), ids, maps.reshape(2, -1), views, 7)
    assert bank.written.tolist() == [-1, 7, -1, 7]
    relevance, known = read(bank, ids, views)
    np.testing.assert_array_equal(relevance, maps.reshape(2, -1))
    assert known.all()
    kept = maps[0] if view is WHOLE else maps[0, :, ::-1]
    np.testing.assert_array_equal(bank.relevance[3], kept)


@properties
@given(view=crops(), grid=grids, first=st.booleans())
def test_a_crop_is_written_inside_and_nowhere_else(view, grid, first):
    old = np.zeros((1, *grid), np.float16) if first else np.full((1, *grid), 8.0)
    bank = empty_bank(1, grid) if first else bank_of(old)
    new = sampled(smooth, grid, view)
    after = arrays(written(bank, np.int32([0]), new.reshape(1, -1), view[None], 9))
    assert after.written == [9]
    ends = np.sort(np.stack((view[:, 0], view.sum(1))), axis=0).astype(float)
    y, x = np.meshgrid(*map(centres, grid), indexing="ij")
    margin = np.minimum.reduce(
        [y - ends[0, 0], ends[1, 0] - y, x - ends[0, 1], ends[1, 1] - x]
    )
    inside, outside = margin > 1e-5, margin < -1e-5
    nearest = through(new[None], np.asarray(invert(view)))[0]
    made = np.abs(after.relevance[0] - nearest) < 2e-3
    assert made[inside].all()
    assert made[outside].all() if first else (after.relevance[0][outside] == 8).all()


def test_an_unseen_part_takes_the_nearest_value_until_it_is_seen():
    bank, ids = empty_bank(1, (4, 4)), np.int32([0])
    ramp = np.tile(np.float32([1, 2, 3, 4]), (1, 4))
    left, right = (crop(0, start, 1, 0.5)[None] for start in (0, 0.5))
    bank = written(bank, ids, ramp, left, 1)
    # The centres of the two left tokens lie between those of two tokens shown.
    np.testing.assert_array_equal(bank.relevance[0], [[1.5, 3.5, 4, 4]] * 4)
    bank = written(bank, ids, 10 * ramp, right, 2)
    np.testing.assert_array_equal(bank.relevance[0], [[1.5, 3.5, 15, 35]] * 4)
    assert bank.written.tolist() == [2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("grid", [(4, 4), (1, 7)])
def test_a_map_that_is_not_finite_changes_nothing(bad, grid):
    tokens = grid[0] * grid[1]
    bank = bank_of(np.random.default_rng(0).normal(size=(4, *grid)), step=3)
    maps = np.random.default_rng(1).normal(size=(3, tokens)).astype(np.float32)
    maps[1, tokens // 2] = bad
    views = np.stack(BOXES[1:])
    after = written(bank, np.int32([0, 1, 2]), maps, views, 8)
    assert after.written.tolist() == [8, 3, 8, 3]
    np.testing.assert_array_equal(after.relevance[1], bank.relevance[1])
    # Nor does it hide a good row of the same example, before it or after.
    for row in (0, 2):
        ids = np.int32([2, 2, 2])
        ids[2 - row] = 0
        after = written(bank, ids, maps, views, 8)
        alone = written(bank, ids[[row]], maps[[row]], views[[row]], 8)
        np.testing.assert_array_equal(after.relevance[2], alone.relevance[2])
        assert after.written.tolist() == [8, 3, 8, 3]
    empty = written(empty_bank(4, grid), np.int32([0, 1, 2]), maps, views, 8)
    assert empty.written.tolist() == [8, -1, 8, -1]
    assert np.isfinite(arrays(empty).relevance).all()


@pytest.mark.parametrize("views", [np.zeros((1, 2, 2)), np.full((1, 2, 2), np.nan)])
def test_a_view_of_nothing_changes_nothing(views):
    bank = bank_of(np.ones((2, 3, 3)))
    maps = np.full((1, 9), 5, np.float32)
    assert_same(written(bank, np.int32([0]), maps, np.float32(views), 4), bank)


def test_the_range_of_float16():
    values = np.float32([1e-9, 1e-5, 0.1, -1, 65504, 65519, 1e6, -3e38, 0])
    ids, views = np.int32([0]), WHOLE[None]
    bank = written(empty_bank(1, (3, 3)), ids, values[None], views, 0)
    relevance, known = read(bank, ids, views)
    assert known.all()
    assert relevance[0, 4:].tolist() == [65504, 65504, 65504, -65504, 0]
    np.testing.assert_allclose(relevance[0, :4], values[:4], rtol=5e-4, atol=6e-8)


@pytest.mark.parametrize("ids", [[-1, 1], [5, 1], [2**31 - 1, 1]])
def test_examples_that_the_bank_does_not_have(ids):
    bank = bank_of(np.arange(20).reshape(5, 2, 2))
    ids, maps = np.int32(ids), np.full((2, 4), 7, np.float32)
    views = np.stack((WHOLE, WHOLE))
    relevance, known = read(bank, ids, views)
    np.testing.assert_array_equal(relevance, [[0] * 4, [4, 5, 6, 7]])
    assert known.tolist() == [False, True]
    after = written(bank, ids, maps, views, 6)
    expected = np.arange(20).reshape(5, 2, 2)
    expected[1] = 7
    assert_same(after, Bank(np.float16(expected), np.int32([0, 6, 0, 0, 0])))


@properties
@given(ids=st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_of_one_example_twice_one_row_is_written_whole(ids):
    ids = np.int32(ids)
    rows = np.arange(1, 9, dtype=np.float32)
    maps = np.broadcast_to(rows[:, None], (8, 12))
    views = np.broadcast_to(WHOLE, (8, 2, 2))
    bank = arrays(written(empty_bank(4, (3, 4)), ids, maps, views, 2))
    for example in range(4):
        (value,) = np.unique(bank.relevance[example])
        offered = rows[ids == example]
        assert value in offered if len(offered) else value == 0
        assert bank.written[example] == (2 if len(offered) else -1)


def batch(count=16, examples=40, grid=(6, 10)):
    rng = np.random.default_rng(0)
    ids = rng.permutation(examples)[:count].astype(np.int32)
    maps = rng.normal(size=(count, grid[0] * grid[1])).astype(np.float32)
    views = np.stack([BOXES[i % len(BOXES)] for i in range(count)])
    bank = bank_of(rng.normal(size=(examples, *grid)))
    return bank, ids, maps, views


def test_a_row_does_not_know_its_batch():
    bank, ids, maps, views = batch()
    whole, (relevance, _) = written(bank, ids, maps, views, 5), read(bank, ids, views)
    for row in (0, 7, 15):
        one = slice(row, row + 1)
        alone = written(bank, ids[one], maps[one], views[one], 5)
        example = ids[row]
        np.testing.assert_array_equal(
            whole.relevance[example], alone.relevance[example]
        )
        seen, _ = read(bank, ids[one], views[one])
        np.testing.assert_array_equal(relevance[row], seen[0])
    rest = np.setdiff1d(np.arange(40), ids)
    np.testing.assert_array_equal(whole.relevance[rest], bank.relevance[rest])


@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize("divided", [False, True], ids=["replicated", "divided"])
@pytest.mark.parametrize("twice", [False, True], ids=["unique", "twice"])
def test_over_a_mesh(devices, divided, twice):
    bank, ids, maps, views = batch()
    if twice:
        ids = ids[np.arange(16) // 3]  # also across the borders of devices
    expected = written(bank, ids, maps, views, 5)
    chosen = jax.devices()[:devices]
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=chosen)
    rows, one = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (("data",), ()))
    home = rows if divided else one
    placed = jax.device_put((ids, maps, views), rows)
    spread = jax.device_put(bank, home)
    write = jax.jit(write_bank, donate_argnums=0, out_shardings=home)
    after = write(spread, *placed, 5)
    assert spread.relevance.is_deleted()
    assert len(after.relevance.sharding.device_set) == devices
    assert_same(after, expected)
    reading = jax.jit(read_bank, out_shardings=rows)
    relevance, known = reading(after, placed[0], placed[2])
    seen, _ = read(expected, ids, views)
    np.testing.assert_array_equal(relevance, seen)
    assert known.all()


def test_no_gather_in_resampling():
    """Inside a step it is two matrix products."""
    text = jax.jit(resample).lower(
        np.zeros((4, 14, 14), np.float32), np.tile(WHOLE, (4, 1, 1))
    )
    assert "gather" not in text.as_text() and "dot_general" in text.as_text()


def test_ids_may_be_traced_along_with_the_step():
    def body(bank, step):
        ids = step + jnp.arange(2, dtype=jnp.int32)
        maps = jnp.full((2, 4), step, jnp.float32)
        return write_bank(bank, ids, maps, np.tile(WHOLE, (2, 1, 1)), step), None

    bank, _ = jax.lax.scan(body, empty_bank(5, (2, 2)), jnp.arange(4))
    assert bank.written.tolist() == [0, 1, 2, 3, 3]
    assert bank.relevance[:, 0, 0].tolist() == [0, 1, 2, 3, 3]
