import numpy as np
import pytest

from sgmae_jax.evaluation import few_shot_probe, ridge_probe
from tests.evaluation.test_probe import clusters

FIT, TEST = clusters(0, 400), clusters(1, 300)
SETS = dict(fit_x=FIT[0], fit_y=FIT[1], x=TEST[0], y=TEST[1], num_classes=4)


def test_one_draw_is_the_closed_form_on_the_items_drawn():
    shots, penalty = 3, 0.1
    found = few_shot_probe(**SETS, shots=shots, draws=1, penalties=[penalty], seed=7)
    order = np.random.default_rng([7, 0]).permutation(400)
    taken = np.concatenate([order[FIT[1][order] == k][:shots] for k in range(4)])
    assert len(taken) == 12
    whole = ridge_probe(
        FIT[0][taken], FIT[1][taken], *TEST, num_classes=4, penalties=[penalty]
    )
    assert found.accuracy == pytest.approx(whole.accuracy, abs=1e-12)
    assert found.error == 0 and found.penalty == penalty


def test_more_shots_help_and_the_error_is_that_of_the_draws():
    few = few_shot_probe(**SETS, shots=1, draws=4)
    many = few_shot_probe(**SETS, shots=20, draws=4)
    assert many.accuracy > few.accuracy + 0.05
    singles = [
        few_shot_probe(**SETS, shots=20, draws=draws, penalties=[many.penalty]).accuracy
        for draws in (1, 2, 3, 4)
    ]
    # Means over the first draws give the draws back.
    draws = np.diff(np.array(singles) * np.arange(1, 5), prepend=0)
    assert many.accuracy == pytest.approx(draws.mean())
    assert many.error == pytest.approx(draws.std(ddof=1) / 2)


def test_every_shot_of_a_well_separated_set_is_right():
    fit, test = clusters(0, 100, spread=1e-3), clusters(1, 50, spread=1e-3)
    for shots in (1, 5):
        found = few_shot_probe(*fit, *test, num_classes=4, shots=shots)
        assert found.accuracy == 1 and found.error == 0


def test_the_seed_decides_and_nothing_else_does():
    first, again, other = (
        few_shot_probe(**SETS, shots=2, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_test_labels_never_choose_the_penalty():
    wrong = dict(SETS, y=(TEST[1] + 1) % 4)
    assert (
        few_shot_probe(**SETS, shots=5).penalty
        == few_shot_probe(**wrong, shots=5).penalty
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(shots=0), "shots 0 and draws 5 must be at least 1"),
        (dict(shots=1, draws=0), "must be at least 1"),
        (dict(shots=1000), "1000 shots need 1000 items of every class"),
        (dict(shots=1, num_classes=5), "one has 0"),
        (dict(shots=1, fit_x=FIT[0][:3]), "one label each"),
        (
            dict(shots=1, fit_x=np.eye(4, 12), fit_y=np.arange(4)),
            "leave no item of the fit set to choose with",
        ),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        few_shot_probe(**{**SETS, **change})
    assert "\n" not in str(error.value)
