import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from sgmae_jax.evaluation.probe import PENALTIES, ridge_hits, ridge_probe


def clusters(seed, count, *, classes=4, width=12, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    y = rng.integers(classes, size=count).astype(np.int32)
    x = centres[y] + spread * rng.normal(size=(count, width))
    # Features of very different scale and offset, as encoders give them.
    x = x * np.logspace(-2, 2, width) + np.linspace(-50, 50, width)
    return x.astype(np.float32), y


def scikit_accuracy(fit_x, fit_y, x, y, penalty):
    scaler = StandardScaler().fit(fit_x.astype(np.float64))
    model = RidgeClassifier(alpha=penalty * len(fit_x))
    model.fit(scaler.transform(fit_x.astype(np.float64)), fit_y)
    return model.score(scaler.transform(x.astype(np.float64)), y)


@pytest.mark.parametrize("width", [12, 400], ids=["primal", "dual"])
@pytest.mark.parametrize("penalty", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_agrees_with_scikit_learn(width, penalty, classes):
    spread = 4 if width == 12 else 10
    fit_x, fit_y = clusters(0, 150, width=width, spread=spread, classes=classes)
    x, y = clusters(1, 500, width=width, spread=spread, classes=classes)
    result = ridge_probe(
        fit_x, fit_y, x, y, num_classes=classes, penalties=[penalty], seed=0
    )
    assert result.penalty == penalty
    expected = scikit_accuracy(fit_x, fit_y, x, y, penalty)
    assert 1 / classes < expected < 1
    assert result.accuracy == pytest.approx(expected, abs=1e-9)


def test_primal_and_dual_are_one_solution():
    fit_x, fit_y = clusters(0, 40, width=39, spread=3)
    x, y = clusters(1, 800, width=39, spread=3)
    # Two more columns of constants change the shape of the problem and nothing else.
    wide_fit = np.hstack([fit_x, np.full((40, 2), 7, np.float32)])
    wide = np.hstack([x, np.full((800, 2), 7, np.float32)])
    narrow = ridge_hits(fit_x, fit_y, x, y, 4, PENALTIES)
    assert (narrow == ridge_hits(wide_fit, fit_y, wide, y, 4, PENALTIES)).all()


def test_closed_form_on_one_feature():
    # Standardised x = (-1, 1, -1, 1, ...), targets ±1/2: the slope is ½ / (1 + a), so
    # the boundary lies at the mean of the fit set whatever the penalty.
    fit_x = np.tile(np.array([[0.0], [2.0]], np.float32), (5, 1))
    fit_y = np.tile([0, 1], 5)
    x = np.array([[0.99], [1.01], [-5], [7]], np.float32)
    for penalty in (1e-6, 1.0, 100.0):
        result = ridge_probe(
            fit_x,
            fit_y,
            x,
            np.array([0, 1, 0, 1]),
            num_classes=2,
            penalties=[penalty],
            seed=0,
        )
        assert result.accuracy == 1.0


def test_a_huge_penalty_predicts_the_most_frequent_class():
    fit_x, fit_y = clusters(0, 400)
    fit_y[:300] = 2
    x, y = clusters(1, 400)
    result = ridge_probe(fit_x, fit_y, x, y, num_classes=4, penalties=[1e12], seed=0)
    assert result.accuracy == np.mean(y == 2)


def test_separable_classes_reach_one_and_permuted_labels_are_chance():
    fit_x, fit_y = clusters(0, 2000, spread=0.02)
    x, y = clusters(1, 2000, spread=0.02)
    assert ridge_probe(fit_x, fit_y, x, y, num_classes=4, seed=0).accuracy == 1.0
    shuffled = np.random.default_rng(0).permutation(fit_y)
    chance = ridge_probe(fit_x, shuffled, x, y, num_classes=4, seed=0).accuracy
    assert abs(chance - 0.25) < 0.12


def test_penalty_is_chosen_where_it_helps():
    # 60 items, 50 features of which only one tells: little penalty overfits.
    rng = np.random.default_rng(0)

    def draw(count):
        x = rng.normal(size=(count, 50)).astype(np.float32)
        return x, (x[:, 0] + 0.3 * rng.normal(size=count) > 0).astype(np.int32)

    fit, test = draw(60), draw(2000)
    chosen = ridge_probe(*fit, *test, num_classes=2, seed=0)
    bare = ridge_probe(*fit, *test, num_classes=2, penalties=[1e-6], seed=0)
    assert chosen.penalty > 1e-3
    assert chosen.accuracy > bare.accuracy + 0.02


def test_the_test_set_has_no_say_in_the_penalty():
    fit_x, fit_y = clusters(0, 100, spread=5)
    x, y = clusters(1, 100, spread=5)
    other = np.random.default_rng(0).permutation(y)
    probe = dict(num_classes=4, seed=3)
    assert (
        ridge_probe(fit_x, fit_y, x, y, **probe).penalty
        == ridge_probe(fit_x, fit_y, -x, other, **probe).penalty
    )


def test_same_seed_same_result_and_the_seed_matters():
    fit_x, fit_y = clusters(0, 80, spread=8)
    x, y = clusters(1, 300, spread=8)
    results = [
        ridge_probe(fit_x, fit_y, x, y, num_classes=4, seed=seed)
        for seed in (0, 0, 1, 2, 3, 4)
    ]
    assert results[0] == results[1]
    assert len({result.penalty for result in results}) > 1


def test_constant_features_and_absent_classes_do_no_harm():
    fit_x, fit_y = clusters(0, 200)
    x, y = clusters(1, 200)
    plain = ridge_probe(fit_x, fit_y, x, y, num_classes=4, penalties=[0.1], seed=0)
    constant = np.full((200, 3), 1 / 3, np.float32)
    with_extras = ridge_probe(
        np.hstack([fit_x, constant]),
        fit_y,
        # A feature that was constant when fitting tells nothing, whatever it does now.
        np.hstack([x, constant * 1e4]),
        y,
        num_classes=9,
        penalties=[0.1],
        seed=0,
    )
    assert with_extras.accuracy == pytest.approx(plain.accuracy, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(penalties=[]), "penalties must be positive"),
        (dict(penalties=[0.0]), "penalties must be positive"),
        (dict(penalties=[1.0, float("inf")]), "penalties must be positive"),
        (dict(fit_x=np.zeros((4, 2)), fit_y=np.zeros(4, int)), "needs 5 items"),
        (dict(x=np.zeros((3, 4))), "differ in width: 2 and 4"),
        (dict(y=np.array([0, 1, 2])), "test set: labels must lie in"),
        (dict(fit_x=np.full((6, 2), np.nan)), "fit set: features hold NaN"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    good = dict(
        fit_x=np.zeros((6, 2)),
        fit_y=np.zeros(6, int),
        x=np.zeros((3, 2)),
        y=np.zeros(3, int),
        num_classes=2,
        seed=0,
    )
    with pytest.raises(ValueError, match=message) as error:
        ridge_probe(**(good | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_with_a_vanishing_penalty_the_discriminant_rule_is_lda(classes):
    fit_x, fit_y = clusters(0, 400, spread=4, classes=classes)
    x, y = clusters(1, 500, spread=4, classes=classes)
    (hits,) = ridge_hits(fit_x, fit_y, x, y, classes, [1e-10], "discriminant")
    model = LinearDiscriminantAnalysis(solver="lsqr")
    scaler = StandardScaler().fit(fit_x.astype(np.float64))
    model.fit(scaler.transform(fit_x.astype(np.float64)), fit_y)
    expected = model.predict(scaler.transform(x.astype(np.float64))) == y
    assert (hits == expected).mean() > 0.995


def test_the_largest_target_hides_a_class_between_others():
    """Three classes on a line: regression never gives the middle one the largest."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=3000)
    x = (y[:, None] * 4 + rng.normal(size=(3000, 1))).astype(np.float32)
    found = {
        rule: ridge_probe(
            x[:2000], y[:2000], x[2000:], y[2000:], num_classes=3, rule=rule
        )
        for rule in ("largest", "discriminant")
    }
    assert found["largest"].accuracy < 0.75 < 0.95 < found["discriminant"].accuracy


def test_the_discriminant_rule_is_the_same_in_both_spaces_and_skips_absent_classes():
    fit_x, fit_y = clusters(0, 40, width=39, spread=3)
    x, y = clusters(1, 300, width=39, spread=3)
    wide_fit = np.hstack([fit_x, np.full((40, 2), 7, np.float32)])
    wide = np.hstack([x, np.full((300, 2), 7, np.float32)])
    for classes in (4, 6):  # two of the six have no item
        narrow = ridge_hits(fit_x, fit_y, x, y, classes, [0.1, 1.0], "discriminant")
        others = wide_fit, fit_y, wide, y, classes, [0.1, 1.0], "discriminant"
        assert (narrow == ridge_hits(*others)).mean() > 0.99
        assert narrow.mean() > 0.3
