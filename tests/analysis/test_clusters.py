"""Agreement of clusters and masks: scikit-learn is the oracle."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, jaccard_score

from sgmae_jax.analysis.clusters import (
    adjusted_rand_index,
    intersection_over_union,
    recall,
    token_object,
)

SIZES = st.integers(1, 30)


@settings(deadline=None)
@given(st.data(), SIZES, st.integers(1, 4), st.integers(1, 4))
def test_adjusted_rand_index_is_scikit_learns(data, size, one, other):
    draw = [
        data.draw(hnp.arrays(np.int64, size, elements=st.integers(0, n)))
        for n in (one, other)
    ]
    found = adjusted_rand_index(*draw)
    assert found == pytest.approx(adjusted_rand_score(*draw), abs=1e-12)
    assert found == pytest.approx(adjusted_rand_index(*draw[::-1]), abs=1e-12)


def test_names_of_the_clusters_do_not_matter():
    cut = np.array([0, 0, 1, 1, 1])
    assert adjusted_rand_index(cut, cut == 0) == 1
    assert adjusted_rand_index(cut > 0, np.array(list("aabbb"))) == 1


def test_random_partitions_have_index_zero_on_average():
    rng = np.random.default_rng(0)
    truth = np.arange(64) < 20
    found = [adjusted_rand_index(truth, rng.random(64) < 0.4) for _ in range(300)]
    assert abs(np.mean(found)) < 0.01


@settings(deadline=None)
@given(st.data(), SIZES)
def test_intersection_over_union_is_scikit_learns(data, size):
    one, other = (data.draw(hnp.arrays(bool, size)) for _ in range(2))
    expected = jaccard_score(one, other, zero_division=1.0)
    assert intersection_over_union(one, other) == pytest.approx(expected)


def test_recall():
    wanted = np.array([True, True, True, False])
    assert recall(np.array([True, False, True, True]), wanted) == pytest.approx(2 / 3)
    assert recall(~wanted, wanted) == 0 and recall(wanted, ~wanted | True) == 0.75
    assert recall(wanted, np.zeros(4, bool)) == 1


def test_a_patch_belongs_to_what_covers_most_of_it():
    mask = np.zeros((4, 6), bool)
    mask[:2, :3] = True  # all of the first patch
    mask[2, 3:] = True  # half of the last one
    mask[2:, :2] = True  # two thirds of the third
    assert token_object(mask, (2, 3)).tolist() == [True, False, True, False]
    assert token_object(mask, (1, 1)).tolist() == mask.reshape(-1).tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda: adjusted_rand_index(np.zeros(3), np.zeros(4)),
        lambda: adjusted_rand_index(np.zeros(0), np.zeros(0)),
        lambda: adjusted_rand_index(np.zeros((2, 2)), np.zeros((2, 2))),
        lambda: intersection_over_union(np.zeros(3, bool), np.zeros(4, bool)),
        lambda: recall(np.zeros(3, bool), np.zeros(4, bool)),
        lambda: token_object(np.zeros((4, 5), bool), (2, 2)),
    ],
)
def test_what_does_not_fit_together(call):
    with pytest.raises(ValueError):
        call()
