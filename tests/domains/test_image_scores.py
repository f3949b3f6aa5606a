"""The accuracy of a method's own head, beside the scores of its features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.config import load_config, pair
from sgmae_jax.data import eval_image
from sgmae_jax.domains.image_scores import Scorer
from sgmae_jax.domains.images import open_source as open_config_source
from sgmae_jax.methods.base import Run
from sgmae_jax.training.mesh import make_mesh, placer
from tests.training.toys import one_network

LIMITS = [("eval.limit", "30"), ("eval.fit_limit", "40"), ("eval.batch_size", "16")]


@pytest.fixture(scope="module")
def config():
    return load_config("quickstart", [*LIMITS, ("eval.baselines", "True")])


def features(params, images):
    pixels = images.reshape(len(images), -1)[:, ::97] / 255.0
    return pixels + params["model"]["kernel"][0]


def logits_of(classes):
    def logits(params, images):
        means = jnp.mean(images / 255.0, axis=(1, 2, 3))
        return -jnp.abs(means[:, None] - jnp.linspace(0, 1, classes))

    return logits


def scorer_of(config, classes):
    method = one_network()._replace(features={"first": features, "second": features})
    if classes:
        method = method._replace(logits=logits_of(classes))
    place = placer(make_mesh(config.mesh))
    return Scorer(config, method, Run(1, 1), place=place, say=print)


def params_of(value=0.0):
    return {"model": {"kernel": jnp.full((3,), value)}}


def counted(config, classes):
    """The same accuracy, image by image."""

    source = open_config_source(config, config.eval.split, in_memory=False)
    order = np.random.default_rng(20_211_111).permutation(len(source))[:30]
    size = pair(config.data.image_size)
    right = 0
    for index in order.tolist():
        image = eval_image(source[index]["image"], size, config.eval.crop).image
        found = jax.jit(logits_of(classes))({}, image[None])
        right += int(found.argmax()) == source[index]["label"]
    return right / 30


def test_accuracy_is_in_the_row_of_the_first_trained_features(config):
    source = open_config_source(config, config.eval.split, in_memory=False)
    classes = len(source.classes)
    scorer = scorer_of(config, classes)
    scores = scorer.final(params_of(), params_of)
    assert [name for name in scores if "accuracy" in scores[name]] == ["trained first"]
    accuracy = scores["trained first"]["accuracy"]
    assert accuracy == pytest.approx(counted(config, classes)) and accuracy > 0
    flat = scorer.as_metrics(scores)
    assert flat["eval/accuracy"] == accuracy
    assert set(flat) == {
        *("eval/knn", "eval/probe", "eval/accuracy"),
        *("eval/knn/second", "eval/probe/second"),
    }
    assert scorer.online(params_of()) == flat


def test_a_method_without_logits_has_none(config):
    scores = scorer_of(config, 0).final(params_of(), params_of)
    assert all(set(row) == {"knn", "probe"} for row in scores.values())


def test_a_head_for_other_classes_is_not_scored(config, capsys):
    scores = scorer_of(config, 3).final(params_of(), params_of)
    assert not any("accuracy" in row for row in scores.values())
    assert "no accuracy: the head knows 3 classes" in capsys.readouterr().out
