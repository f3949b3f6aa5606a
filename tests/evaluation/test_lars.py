import jax
import numpy as np
import pytest

from sgmae_jax.evaluation import lars_probe, ridge_probe
from sgmae_jax.evaluation.lars import _fit
from tests.evaluation.test_probe import clusters

FIT, TEST = clusters(0, 600, spread=0.7), clusters(1, 400, spread=0.7)
SETS = dict(fit_x=FIT[0], fit_y=FIT[1], x=TEST[0], y=TEST[1], num_classes=4)


def test_agrees_with_the_closed_form_on_gaussian_classes():
    # Equal spherical classes: the best rule is linear, and both come close to it.
    closed = ridge_probe(**SETS).accuracy
    found = lars_probe(**SETS, batch_size=100)
    assert 0.5 < closed < 1 and abs(found - closed) < 0.03


def test_running_statistics_approach_those_of_the_fit_set():
    _, found = _fit(
        *FIT, jax.random.key(0), num_classes=4, epochs=10, batch_size=600, rate=1e-6
    )
    # One batch an epoch, ten epochs: 1 - 0.9^10 of the way from (0, 1).
    way = 1 - 0.9**10
    np.testing.assert_allclose(
        found["mean"], way * FIT[0].mean(0), rtol=1e-4, atol=1e-6
    )
    expected = 0.9**10 + way * FIT[0].var(0, ddof=1)
    np.testing.assert_allclose(found["var"], expected, rtol=1e-4)


def test_the_seed_decides_and_nothing_else_does():
    few = dict(SETS, batch_size=100, epochs=3)
    first, again, other = (lars_probe(**few, seed=seed) for seed in (1, 1, 2))
    assert first == again and abs(first - other) < 0.3


def test_scale_and_offset_of_features_do_not_matter():
    moved = dict(SETS, fit_x=FIT[0] * 3 + 5, x=TEST[0] * 3 + 5)
    first, second = (lars_probe(**sets, batch_size=100) for sets in (SETS, moved))
    assert abs(first - second) < 0.02


def test_a_batch_beyond_the_fit_set_is_cut():
    few = dict(SETS, fit_x=FIT[0][:50], fit_y=FIT[1][:50], epochs=5)
    assert lars_probe(**few, batch_size=512) == lars_probe(**few, batch_size=50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(epochs=0), "0 epochs"),
        (dict(rate=0.0), "rate 0.0"),
        (dict(rate=float("nan")), "rate nan"),
        (dict(batch_size=1), "batches of 1"),
        (dict(fit_x=FIT[0][:1], fit_y=FIT[1][:1]), "batches of 1"),
        (dict(x=TEST[0][:, :2]), "differ in width"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        lars_probe(**{**SETS, **change})
    assert "\n" not in str(error.value)
