"""Protocols by name: what they report, and what they choose on."""

import numpy as np
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.evaluation import Features, knn_accuracies, ridge_probe
from sgmae_jax.evaluation.protocols import FeatureSets, score
from tests.evaluation.test_probe import clusters


def features(seed, count, spread=3.0):
    x, y = clusters(seed, count, spread=spread)
    return Features(x, y, np.arange(count), ())


FIT, TEST, VALIDATION = features(0, 300), features(1, 200), features(2, 200)


def asked(**fields):
    part = default_config().eval
    part.lars_epochs, part.lars_batch_size = 30, 50
    for name, value in fields.items():
        part[name] = value
    return part


def arrays(test):
    return FIT.features, FIT.labels, test.features, test.labels


def test_by_default_nearest_neighbours_and_the_closed_form():
    found = score(FeatureSets(FIT, TEST, None, 4), asked(), seed=0, say=print)
    assert found == {
        "knn": knn_accuracies(*arrays(TEST), num_classes=4, ks=[20])[20],
        "probe": ridge_probe(*arrays(TEST), num_classes=4).accuracy,
    }


def test_of_several_k_the_validation_split_chooses():
    ks = (1, 5, 80)
    part = asked(protocols="knn", neighbours=ks)
    found = score(FeatureSets(FIT, TEST, VALIDATION, 4), part, seed=0, say=print)
    on_test = knn_accuracies(*arrays(TEST), num_classes=4, ks=ks)
    on_validation = knn_accuracies(*arrays(VALIDATION), num_classes=4, ks=ks)
    assert {k: found[f"knn@{k}"] for k in ks} == on_test
    best = max(ks, key=on_validation.get)
    assert found["knn"] == on_test[best]
    # Where another k is best on the test set, it does not count.
    twisted = VALIDATION._replace(labels=(VALIDATION.labels + 1) % 4)
    chosen = score(FeatureSets(FIT, TEST, twisted, 4), part, seed=0, say=print)["knn"]
    worst = knn_accuracies(*arrays(twisted), num_classes=4, ks=ks)
    assert chosen == on_test[max(ks, key=lambda k: (worst[k], -k))]


def test_all_of_them_under_their_names():
    part = asked(
        protocols=("few_shot", "lars", "discriminant", "probe", "knn"), shots=(1, 3)
    )
    found = score(FeatureSets(FIT, TEST, None, 4), part, seed=0, say=print)
    assert list(found) == [
        *("1-shot", "1-shot error", "3-shot", "3-shot error"),
        *("lars", "discriminant", "probe", "knn"),
    ]
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize("protocols", ["lars", "few_shot"])
def test_the_seed_reaches_them(protocols):
    sets = FeatureSets(FIT, TEST, None, 4)
    part = asked(protocols=protocols, shots=1)
    assert score(sets, part, seed=0, say=print) != score(sets, part, seed=1, say=print)


def test_shots_that_a_class_has_not_are_left_out_and_told():
    said = []
    fewest = int(np.bincount(FIT.labels).min())
    part = asked(protocols="few_shot", shots=(1, fewest, 1000))
    found = score(FeatureSets(FIT, TEST, None, 4), part, seed=0, say=said.append)
    assert set(found) == {"1-shot", "1-shot error"}
    assert said == [
        f"no {shots}-shot score: a class has {fewest} images to fit"
        for shots in (fewest, 1000)
    ]
