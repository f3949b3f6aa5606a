"""Metrics of answers against scikit-learn and SciPy, ties included."""

import numpy as np
import pytest

from sgmae_jax.evaluation import answers


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_same_as_other_libraries(seed, digits):
    stats = pytest.importorskip("scipy.stats")
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(200).round(digits)  # with few digits there are ties
    found = (truth + rng.standard_normal(200)).round(digits)
    label = (truth + rng.standard_normal(200) > 0).astype(int)
    logits = rng.standard_normal((200, 3)).round(digits)
    np.testing.assert_allclose(answers.ranks(found), stats.rankdata(found))
    np.testing.assert_allclose(
        answers.spearman(found, truth), stats.spearmanr(found, truth).statistic
    )
    np.testing.assert_allclose(
        answers.roc_auc(found, label), metrics.roc_auc_score(label, found)
    )
    np.testing.assert_allclose(
        answers.rmse(found, truth), metrics.root_mean_squared_error(truth, found)
    )
    classes = rng.integers(0, 3, 200)
    np.testing.assert_allclose(
        answers.accuracy(logits, classes),
        metrics.accuracy_score(classes, logits.argmax(1)),
    )


def test_what_cannot_be_said_is_nan():
    assert np.isnan(answers.spearman(np.ones(4), np.arange(4.0)))
    assert np.isnan(answers.roc_auc(np.arange(4.0), np.ones(4, int)))
    assert answers.roc_auc(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5
