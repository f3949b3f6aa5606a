"""A moving ratio takes a few static values, and compiles that many programs."""

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import Context, bucket_at, random_mask, ratio_buckets
from tests.masking.generators import keys_of, properties


def test_known_buckets():
    assert ratio_buckets(0.5, 0.7, 3) == (0.5, 0.6, 0.7)
    assert ratio_buckets(0.9, 0.3, 4) == (0.9, 0.7, 0.5, 0.3)
    assert ratio_buckets(0.75, 0.75, 1) == (0.75,)


@properties
@given(
    total=st.integers(1, 10_000),
    buckets=st.integers(2, 32),
    step=st.integers(0, 20_000),
)
def test_each_bucket_holds_an_equal_share_in_turn(total, buckets, step):
    ratios = ratio_buckets(0.2, 0.8, buckets)
    assert len(set(ratios)) == buckets
    place = ratios.index(bucket_at(step, total, ratios))
    assert place == min(int(step * buckets // total), buckets - 1)
    assert bucket_at(0, total, ratios) == 0.2
    assert bucket_at(total, total, ratios) == 0.8
    after = bucket_at(step + 1, total, ratios)
    assert after >= ratios[place]


def test_shares_of_a_run():
    ratios = ratio_buckets(0.5, 0.75, 3)
    taken = [bucket_at(step, 9, ratios) for step in range(9)]
    assert taken == [0.5] * 3 + [0.625] * 3 + [0.75] * 3


def test_one_program_a_bucket():
    traces = []

    @jax.jit
    def count(hidden):
        return hidden.sum(1)

    def step(keys, ratio):
        traces.append(ratio)
        return count(random_mask(keys, Context(grid=(4, 5)), ratio=ratio).hidden)

    step = jax.jit(step, static_argnums=1)
    ratios = ratio_buckets(0.25, 0.75, 3)
    hidden = [
        int(step(keys_of(0, range(2)), bucket_at(i, 12, ratios))[0]) for i in range(12)
    ]
    assert hidden == [5] * 4 + [10] * 4 + [15] * 4
    assert traces == list(ratios)
    assert step._cache_size() == 3


@pytest.mark.parametrize(
    "start, end, buckets, word",
    [
        (-0.1, 0.5, 2, "start"),
        (0.5, 1.5, 2, "end"),
        (float("nan"), 0.5, 2, "start"),
        (0.5, 0.75, 1, "buckets"),
        (0.5, 0.5, 0, "buckets"),
    ],
)
def test_bad_buckets_are_named(start, end, buckets, word):
    with pytest.raises(ValueError, match=word):
        ratio_buckets(start, end, buckets)


@pytest.mark.parametrize(
    "step, total, ratios", [(-1, 5, (0.5,)), (0, 0, (0.5,)), (0, 5, ())]
)
def test_bad_places_are_refused(step, total, ratios):
    with pytest.raises(ValueError, match="step >= 0"):
        bucket_at(step, total, ratios)
