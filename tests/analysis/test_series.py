"""Which checkpoints are measured, and which are drawn."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sgmae_jax.analysis.series import picture_steps, spread


@given(st.sets(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(1, 30))
def test_the_spread_holds_both_ends(steps, count):
    steps = sorted(steps)
    chosen = spread(steps, count)
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(steps)
    assert len(chosen) <= count and chosen[-1] == steps[-1]
    if count > 1:
        assert chosen[0] == steps[0]
    if len(steps) <= count:
        assert chosen == steps


def test_the_spread_is_even_by_step_and_not_by_number():
    # As a period of 100 and the newest three leave them.
    steps = [100, 200, 300, 400, 500, 600, 680, 690, 700]
    assert spread(steps, 3) == [100, 400, 700]
    assert spread(steps, 7) == [100, 200, 300, 400, 500, 600, 700]
    assert spread(steps, 1) == [700]
    assert spread([], 4) == []


@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        (None, [0, 10, 50, 80]),
        (0, [0, 10, 50, 80]),
        (30, [0, 10, 40, 50, 80]),
        (65, [0, 10, 50, 70, 80]),
        (75, [0, 10, 50, 80]),
    ],
)
def test_first_guided_checkpoints_are_drawn(begin, expected):
    steps = range(0, 90, 10)

    def phase(step):
        return begin is not None and step >= begin

    assert set(picture_steps(steps, phase)) == set(expected) | (
        {70, 80} if begin == 65 else set()
    )


def test_a_single_checkpoint():
    assert picture_steps([0, 7], lambda step: ()) == [0, 7]
