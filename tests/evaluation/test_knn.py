import logging

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from sgmae_jax.evaluation import knn
from sgmae_jax.evaluation.knn import knn_accuracy


def clusters(seed, count, *, classes=5, width=16, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    y = rng.integers(classes, size=count).astype(np.int32)
    x = centres[y] + spread * rng.normal(size=(count, width))
    return x.astype(np.float32), y


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_agrees_with_scikit_learn(k, temperature):
    fit_x, fit_y = clusters(0, 300, spread=1.5)
    x, y = clusters(1, 200, spread=1.5)
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp(-distance / temperature)
    )
    expected = reference.fit(fit_x, fit_y).score(x, y)
    found = knn_accuracy(
        fit_x, fit_y, x, y, k=k, temperature=temperature, num_classes=5
    )
    assert 0.3 < expected < 1
    assert found == pytest.approx(expected, abs=1e-9)


def test_weights_decide_a_vote_that_heads_would_lose():
    # One neighbour of class 0 at angle 0, two of class 1 at 60 degrees (cosine 0.5).
    fit_x = np.array([[1, 0], [0.5, 0.75**0.5], [0.5, -(0.75**0.5)]], np.float32)
    fit_y = np.array([0, 1, 1])
    query, zero = np.array([[3, 0]], np.float32), np.array([0])
    # exp(0.5 / T) against 2: class 0 wins below T = 0.5 / ln 2 = 0.721.
    for temperature, right in ((0.07, 1.0), (0.70, 1.0), (0.75, 0.0), (1e3, 0.0)):
        assert right == knn_accuracy(
            fit_x, fit_y, query, zero, k=3, temperature=temperature, num_classes=2
        )


def test_scale_of_the_features_does_not_matter():
    fit_x, fit_y = clusters(0, 100)
    x, y = clusters(1, 100)
    rng = np.random.default_rng(0)
    stretch = rng.uniform(0.01, 100, (100, 1)).astype(np.float32)
    assert knn_accuracy(fit_x, fit_y, x, y, num_classes=5) == knn_accuracy(
        fit_x * stretch, fit_y, x * stretch[::-1], y, num_classes=5
    )


def test_separable_classes_are_told_apart_and_permuted_labels_are_chance():
    fit_x, fit_y = clusters(0, 1000, spread=0.05)
    x, y = clusters(1, 1000, spread=0.05)
    assert knn_accuracy(fit_x, fit_y, x, y, num_classes=5) == 1.0
    shuffled = np.random.default_rng(0).permutation(fit_y)
    accuracy = knn_accuracy(fit_x, shuffled, x, y, num_classes=5)
    assert abs(accuracy - 0.2) < 0.1


def test_chunks_do_not_change_the_result(monkeypatch):
    fit_x, fit_y = clusters(0, 120, spread=2)
    x, y = clusters(1, 101, spread=2)
    whole = knn_accuracy(fit_x, fit_y, x, y, num_classes=5)
    # 7 queries at a time: the last chunk is padded, and the padding does not count.
    monkeypatch.setattr(knn, "_SIMILARITIES", 7 * 120)
    assert knn_accuracy(fit_x, fit_y, x, y, num_classes=5) == whole
    monkeypatch.setattr(knn, "_SIMILARITIES", 1)
    assert knn_accuracy(fit_x, fit_y, x[:3], y[:3], num_classes=5) in (
        0,
        1 / 3,
        2 / 3,
        1,
    )


def test_ties_go_to_the_lower_index_then_to_the_lower_class():
    same = np.ones((4, 3), np.float32)
    labels = np.array([2, 1, 0, 0])
    query = np.ones((1, 3), np.float32)
    vote = dict(num_classes=3)
    # k = 1: index 0 of four equal neighbours; k = 2: classes 2 and 1 tie, 1 wins.
    assert knn_accuracy(same, labels, query, np.array([2]), k=1, **vote) == 1
    assert knn_accuracy(same, labels, query, np.array([1]), k=2, **vote) == 1
    assert knn_accuracy(same, labels, query, np.array([0]), k=4, **vote) == 1


def test_a_zero_vector_votes_like_an_orthogonal_one():
    fit_x = np.array([[0, 0], [1, 0]], np.float32)
    query = np.array([[1, 0], [0, 0]], np.float32)
    accuracy = knn_accuracy(
        fit_x, np.array([0, 1]), query, np.array([1, 0]), k=1, num_classes=2
    )
    assert accuracy == 1.0


@pytest.mark.parametrize("n", [1, 2, 7, 64, 333, 1000])
@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_top_k_in_two_rounds_is_top_k(n, k, levels):
    # Few levels: many ties, which must fall the same way.
    x = np.random.default_rng(n).integers(levels, size=(40, n)).astype(np.float32)
    k = min(k, n)
    for found, expected in zip(knn._top_k(x, k), jax.lax.top_k(x, k), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_k_beyond_the_fit_set_is_cut_and_told(caplog):
    fit_x, fit_y = clusters(0, 6)
    x, y = clusters(1, 50)
    with caplog.at_level(logging.WARNING):
        cut = knn_accuracy(fit_x, fit_y, x, y, k=20, num_classes=5)
    assert "k=20" in caplog.text and "6 fitted items" in caplog.text
    assert cut == knn_accuracy(fit_x, fit_y, x, y, k=6, num_classes=5)


def test_one_compilation_for_all_chunks(monkeypatch):
    fit_x, fit_y = clusters(0, 90)
    x, y = clusters(1, 50)
    monkeypatch.setattr(knn, "_SIMILARITIES", 8 * 90)
    before = knn._vote._cache_size()
    knn_accuracy(fit_x, fit_y, x, y, k=3, num_classes=5)
    assert knn._vote._cache_size() == before + 1


GOOD = dict(
    fit_x=np.zeros((6, 2), np.float32),
    fit_y=np.zeros(6, np.int32),
    x=np.zeros((3, 2), np.float32),
    y=np.zeros(3, np.int32),
    num_classes=2,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(k=0), "k must be at least 1"),
        (dict(temperature=0.0), "temperature must be above 0"),
        (dict(temperature=float("nan")), "temperature must be above 0"),
        (dict(fit_y=np.zeros(5, np.int32)), "fit set: features must be"),
        (dict(x=np.zeros((3, 2, 1), np.float32)), "test set: features must be"),
        (dict(x=np.zeros((3, 4), np.float32)), "differ in width: 2 and 4"),
        (dict(y=np.array([0, 1, 2])), "test set: labels must lie in"),
        (dict(fit_y=np.full(6, -1)), "fit set: labels must lie in"),
        (dict(fit_x=np.full((6, 2), np.nan)), "fit set: features hold NaN"),
        (dict(x=np.full((3, 2), np.inf)), "test set: features hold NaN"),
        (dict(x=np.zeros((0, 2)), y=np.zeros(0, np.int32)), "test set is empty"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        knn_accuracy(**(GOOD | change))
    assert "\n" not in str(error.value)
