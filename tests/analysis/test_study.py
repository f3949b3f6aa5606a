"""One program measures every checkpoint, and its numbers are those of the metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.analysis import metrics, study
from sgmae_jax.analysis.clusters import adjusted_rand_index, intersection_over_union
from sgmae_jax.analysis.samples import Samples
from sgmae_jax.analysis.study import MASKS, Options, Study, marked_tokens
from sgmae_jax.masking import (
    Context,
    cosine_relations,
    example_keys,
    exploitation_rates,
    guide,
    random_mask,
)
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from tests.models.tiny import autoencoder, encode, noisy, predict

OPTIONS = Options(ratio=0.5, norm_pix=True, layer=2, hint_ratio=0.34)
CAPTURE = ("features", "attention")
PER_LAYER = {
    "feature_variance",
    "similarity_variance",
    "cosine_intra",
    "cosine_inter",
    "attention_intra",
    "attention_inter",
    "relation_divergence",
    "attention_distance",
    "attention_nmi",
    "relative_log_amplitude",
}
OF_MASK_TOKENS = {
    "mask_token_variance",
    "exploitation_layer",
    "exploitation_cumulated",
    "exploitation_per_token",
}


@pytest.fixture(scope="module")
def model():
    return autoencoder()


@pytest.fixture(scope="module")
def params(model):
    start = model.init(jax.random.key(0))
    return start, noisy(start, 2)


@pytest.fixture(scope="module")
def samples(model):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 6, 12, 3), np.uint8)
    objects = rng.random((5, 12)) < 0.4
    return Samples(images, np.array([3, 4, 9, 11, 20], np.int32), objects)


@pytest.fixture(scope="module")
def found(model, params, samples):
    """Two checkpoints, in batches of two of which the last is not full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "batch_size", lambda model: 2)
        one = Study(model, samples, OPTIONS, shown=3)
    results = [one.measure(tree, params[1]) for tree in params]
    return one, results


def test_one_program_for_all_checkpoints(found):
    one, results = found
    assert one.compilations == 1 and len(results) == 2


def test_every_metric_is_there_for_every_layer(found):
    for numbers, _ in found[1]:
        assert numbers["encoder"].keys() == PER_LAYER
        assert numbers["decoder"].keys() == PER_LAYER | OF_MASK_TOKENS
        for part, depth in (("encoder", 3), ("decoder", 2)):
            assert all(len(rows) == depth for rows in numbers[part].values())
        assert np.shape(numbers["encoder"]["relative_log_amplitude"]) == (3, 2)
        assert np.shape(numbers["decoder"]["exploitation_layer"]) == (2, 2, 2)
        assert len(numbers["partition"]["spectrum"]) == 12
        assert tuple(numbers["masks"]) == MASKS


def test_numbers_are_means_of_the_metrics(found, model, params, samples):
    numbers, _ = found[1][0]
    captured = encode(model, params[0], samples.images, capture=CAPTURE).captured

    @jax.jit
    def measure(features, attention):
        return {
            "feature_variance": metrics.feature_variance(features),
            "similarity_variance": metrics.similarity_variance(
                cosine_relations(features)
            ),
            "attention_distance": metrics.attention_distance(attention, model.grid),
            "attention_nmi": metrics.attention_nmi(attention),
        }

    for layer in range(3):
        features = captured["features"][layer][:, 1:]
        found_here = measure(features, captured["attention"][layer])
        for name, expected in found_here.items():
            value = numbers["encoder"][name][layer]
            assert value == pytest.approx(float(expected.mean()), rel=1e-4), name


def test_the_decoder_is_shown_the_whole_image(found, model, params, samples):
    numbers, _ = found[1][1]
    output = model.layer(params[1], samples.images, 2, part="decoder")
    expected = metrics.feature_variance(output.features[:, 1:]).mean()
    value = numbers["decoder"]["feature_variance"][1]
    assert value == pytest.approx(float(expected), rel=1e-4)


def test_divergence_ends_at_zero(found):
    first, last = (numbers["encoder"]["relation_divergence"] for numbers, _ in found[1])
    assert min(first) > 1e-6 and max(last) < 1e-7


def test_the_partition_is_that_of_the_guidance(found, model, params, samples):
    numbers, shown = found[1][1]
    captured = encode(model, params[1], samples.images, capture=CAPTURE).captured
    features, attention = (captured[name][OPTIONS.layer - 1] for name in CAPTURE)
    guidance = jax.jit(guide)(features[:, 1:], attention)
    np.testing.assert_array_equal(shown.object, guidance.object[:3])
    partition = numbers["partition"]
    assert partition["share"] == pytest.approx(float(guidance.object.mean()))
    assert partition["eigenvalue"] == pytest.approx(
        float(guidance.cut.eigenvalue.mean()), rel=1e-4
    )
    expected = [
        adjusted_rand_index(*pair)
        for pair in zip(np.asarray(guidance.object), samples.objects, strict=True)
    ]
    assert partition["ari"] == pytest.approx(np.mean(expected))
    assert 1 - partition["spectrum"][1] == pytest.approx(
        partition["eigenvalue"], abs=1e-3
    )


def test_masked_measurements_use_the_same_random_masks(found, model, params, samples):
    numbers, _ = found[1][1]
    ids = jnp.asarray(samples.ids)
    keys = example_keys(jax.random.key(0), jnp.zeros_like(ids), ids, "analysis random")
    mask = random_mask(keys, Context(grid=model.grid), ratio=0.5)
    prediction = predict(model, params[1], samples.images, mask, capture=CAPTURE)
    captured = prediction.captured["decoder"]
    rates = exploitation_rates(captured["attention"].mean(2), mask.hidden)
    for name, expected in zip(("layer", "cumulated", "per_token"), rates, strict=True):
        value = numbers["decoder"][f"exploitation_{name}"]
        np.testing.assert_allclose(value, expected.mean(1), rtol=1e-4)
    variance = metrics.mask_token_variance(captured["features"][1, :, 1:], mask.hidden)
    value = numbers["decoder"]["mask_token_variance"][1]
    assert value == pytest.approx(float(variance.mean()), rel=1e-4)
    target = pixel_targets(
        model.normalise(samples.images), model.patch_size, norm_pix=True
    )
    loss = reconstruction_loss(prediction.tokens, target, mask.hidden)
    random = numbers["masks"]["random"]
    assert random["loss"] == pytest.approx(float(loss), rel=1e-4)
    overlap = [
        intersection_over_union(*pair)
        for pair in zip(np.asarray(mask.hidden) > 0, samples.objects, strict=True)
    ]
    assert random["object_iou"] == pytest.approx(np.mean(overlap))


def test_guided_masks_hide_the_most_relevant_and_hints_swap(found):
    for _, shown in found[1]:
        for guided, hinted, relevance in zip(
            shown.guided, shown.hinted, shown.relevance, strict=True
        ):
            assert guided.sum() == hinted.sum() == 6
            assert relevance[guided > 0].min() >= relevance[guided == 0].max()
            # Two of six are revealed, and two of eight hidden again.
            assert np.abs(guided - hinted).sum() <= 4
    assert any((shown.guided != shown.hinted).any() for _, shown in found[1])


def test_relation_maps_show_the_marked_token(found, model, params, samples):
    one, results = found
    _, shown = results[1]
    captured = encode(model, params[1], samples.images, capture=CAPTURE).captured
    relations = cosine_relations(captured["features"][OPTIONS.layer - 1][:, 1:])
    for image in range(3):
        row = relations[image, one.marked[image]]
        np.testing.assert_allclose(shown.relation[image], row, atol=1e-5)
        assert shown.relation[image, one.marked[image]] == pytest.approx(1, abs=1e-5)
    assert all(len(x) == 3 for x in shown)


def test_the_marked_token_is_in_the_middle_of_the_object():
    inside = np.zeros((3, 12), bool)
    inside[0, [0, 1, 6, 7]] = True  # a square of four on the left of 2x6
    inside[1, 11] = True
    images = np.zeros((3, 2, 2, 3), np.uint8)
    ids = np.arange(3, dtype=np.int32)
    marked = marked_tokens(Samples(images, ids, inside), (2, 6))
    assert marked[0] in (0, 1, 6, 7) and marked.tolist()[1:] == [11, 9]
    assert marked_tokens(Samples(images, ids, None), (2, 6)).tolist() == [9, 9, 9]


def test_broken_parameters_give_gaps(found, params):
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params[1])
    numbers, shown = found[0].measure(broken, params[1])
    assert numbers["partition"]["degenerate"] == 1
    assert not shown.object.any() and (shown.guided.sum(-1) == 6).all()
    assert numbers["encoder"]["feature_variance"] == [None] * 3
    assert numbers["encoder"]["cosine_intra"] == [None] * 3
    assert numbers["masks"]["random"]["loss"] is None
    assert found[0].compilations == 1


@pytest.mark.parametrize("layer", [0, 4, -4])
def test_a_layer_that_is_not_there(model, samples, layer):
    options = dataclasses.replace(OPTIONS, layer=layer)
    with pytest.raises(ValueError, match="layers count from 1 to 3"):
        Study(model, samples, options)


def test_big_models_are_looked_at_in_small_batches():
    assert study.batch_size(autoencoder()) == 64
    big = autoencoder(grid=(28, 28), depth=24)
    maps = 24 * 3 + 2 * 2
    assert study.batch_size(big) == 2**30 // (4 * maps * 785**2) < 64
    huge = autoencoder(grid=(100, 100), depth=24)
    assert study.batch_size(huge) == 1
