"""LC-MAE: the identity it rests on, its switches, and what each must leave alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.analysis.invariance import over_masks
from sgmae_jax.config import ConfigError, validate
from sgmae_jax.main import main
from sgmae_jax.masking import Context, example_keys, random_mask, select
from sgmae_jax.methods.base import Stream
from sgmae_jax.methods.contrast import info_nce, uniformity
from sgmae_jax.methods.image import make_autoencoder, training_flops
from sgmae_jax.methods.lc_mae import look, of_one_crop, streams
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from tests.methods.cases import (
    KEY,
    batch_of,
    build,
    gradients,
    start,
    stepper,
    tiny_config,
)
from tests.tiny import arguments, losses

STEP = jnp.int32(0)
RATIOS = (0.75, 0.75)


def config_of(**own):
    return tiny_config("lc_mae", **{f"method__{name}": own[name] for name in own})


@pytest.fixture(scope="module")
def setting():
    """A ViT moved off its start, images, and two masks of each."""
    config = config_of()
    model = make_autoencoder(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype),
        model.init(KEY),
    )
    images = model.normalise(batch_of(8)["image"])
    masks = [mask_of(model, draw) for draw in (0, 1)]
    return model, params, images, masks


def mask_of(model, draw, ratio=0.75, count=8):
    ids = jnp.arange(count)
    keys = example_keys(KEY, jnp.full_like(ids, draw), ids, "test")
    return random_mask(keys, Context(grid=model.grid), ratio=ratio)


def terms_of(model, params, images, masks, align_on="pixels"):
    target = pixel_targets(images, model.patch_size, norm_pix=True)
    one, two = (look(model, params, images, m, align_on=align_on) for m in masks)
    return of_one_crop(one, two, target)


def assert_trees_close(ours, theirs, share=1e-5):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=share * largest),
        ours,
        theirs,
    )


def test_a_quarter_alignment_and_consistency_is_mae_on_patches_hidden_twice(setting):
    """T1: the parallelogram identity, in value and gradient."""
    model, params, images, masks = setting

    def ours(params):
        terms = terms_of(model, params, images, masks)
        return terms["alignment"] / 4 + terms["consistency"]

    def theirs(params):
        target = pixel_targets(images, model.patch_size, norm_pix=True)
        both = masks[0].hidden * masks[1].hidden
        predicted = [look(model, params, images, m).prediction for m in masks]
        return sum(reconstruction_loss(y, target, both) for y in predicted) / 2

    value, gradient = jax.jit(jax.value_and_grad(ours))(params)
    expected, wanted = jax.jit(jax.value_and_grad(theirs))(params)
    assert float((masks[0].hidden * masks[1].hidden).sum()) > 8
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_trees_close(gradient, wanted)


def test_the_expected_error_is_bias_and_half_the_variance_of_pairs(setting):
    """Equation (3): over 256 masks, against all pairs of them, patch by patch."""
    model, params, images, _ = setting
    masks = 256

    @jax.jit
    def predicted(draw):
        mask = mask_of(model, draw, count=2)
        return look(model, params, images[:2], mask).prediction, mask.hidden

    y, hidden = jax.lax.map(predicted, jnp.arange(masks))
    y, hidden = np.asarray(y, np.float64), np.asarray(hidden) > 0
    target = pixel_targets(images[:2], model.patch_size, norm_pix=True)
    for image in range(2):
        for patch in range(0, y.shape[2], 5):
            mine = y[hidden[:, image, patch], image, patch]
            x = np.asarray(target[image, patch], np.float64)
            error = np.square(mine - x).sum(-1).mean()
            pairs = np.square(mine[:, None] - mine[None]).sum(-1).mean()
            bias = np.square(mine.mean(0) - x).sum()
            np.testing.assert_allclose(error, bias + pairs / 2, rtol=1e-5)


def test_the_analysis_takes_the_error_apart_alike(setting):
    """`over_masks` against sums over all pairs of its masks."""
    from sgmae_jax.analysis.invariance import masks_of

    model, params, images, _ = setting
    options = {"ratio": 0.75, "seed": 3}
    ids, count = jnp.arange(2), 16
    measure = functools.partial(over_masks, model, norm_pix=True, masks=count)
    found = jax.jit(functools.partial(measure, **options))(params, images[:2], ids)

    @jax.jit
    def predicted(draw):
        mask = masks_of(model, ids, draw, **options)
        return look(model, params, images[:2], mask).prediction, mask.hidden

    y, hidden = (
        np.asarray(x, np.float64) for x in jax.lax.map(predicted, jnp.arange(count))
    )
    target = np.asarray(pixel_targets(images[:2], model.patch_size, norm_pix=True))
    for image in range(2):
        errors, variances, total = 0.0, 0.0, 0
        for patch in range(y.shape[2]):
            mine = y[hidden[:, image, patch] > 0, image, patch]
            if len(mine) < 2:
                continue
            pairs = np.square(mine[:, None] - mine[None]).mean(-1).sum()
            variances += len(mine) * pairs / (2 * len(mine) * (len(mine) - 1))
            errors += np.square(mine - target[image, patch]).mean(-1).sum()
            total += len(mine)
        np.testing.assert_allclose(found["error"][image], errors / total, rtol=1e-4)
        np.testing.assert_allclose(
            found["variance"][image], variances / total, rtol=1e-4
        )


@pytest.mark.parametrize("align_on", ["pixels", "decoder", "encoder"])
def test_swapping_the_masks_changes_nothing(align_on, setting):
    """T2."""
    model, params, images, masks = setting
    terms = jax.jit(functools.partial(terms_of, model, align_on=align_on))
    one, two = terms(params, images, masks), terms(params, images, masks[::-1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, two)
    # T3: one mask twice aligns by itself, and consistency is the error of MAE.
    same = terms(params, images, [masks[0], masks[0]])
    target = pixel_targets(images, model.patch_size, norm_pix=True)
    predicted = look(model, params, images, masks[0]).prediction
    error = reconstruction_loss(predicted, target, masks[0].hidden)
    assert float(same["alignment"]) == 0 and float(same["variance_share"]) == 0
    np.testing.assert_allclose(same["consistency"], error, rtol=1e-5)
    assert float(one["alignment"]) > 0


def spread_over_images(**own):
    """Variance over images of predictions at one place, before and after training."""
    config = config_of(**own)
    config.optim.base_lr = 8e-2
    method = build(config, steps=50)
    state, step = start(method), stepper(method)
    held_out = batch_of(32, first=100)

    def spread(state):
        shown = method.picture(state.params, held_out, KEY, STEP, RATIOS)
        hidden = shown.hidden[..., None]
        count = jnp.maximum(hidden.sum(0), 1)
        mean = (shown.prediction * hidden).sum(0) / count
        return float((jnp.square(shown.prediction - mean) * hidden).sum(0).mean())

    before = spread(state)
    for number in range(50):
        state, metrics = step(state, {"train": batch_of(16, 16 * (number % 4))}, RATIOS)
    return before, spread(state), metrics


def test_alignment_alone_collapses():
    """T4: a prediction by place alone has no alignment left to lose."""
    before, after, metrics = spread_over_images(
        align_weight=1.0, consistency_weight=0.0
    )
    assert after < before / 20
    assert float(metrics["alignment"]) < 1e-3


def test_a_branch_that_hides_nothing_predicts_everything(setting):
    model, params, images, _ = setting
    tokens = model.encoder.tokens
    nothing = select(jnp.zeros((8, tokens)), tokens)
    branch = look(model, params, images, nothing)
    assert float(branch.counted.min()) == 1
    method = build(config_of(other_ratio=0.0, align_weight=0.5))
    assert method.phase(3, {}) == (0.75, 0.0)
    _, found = gradients(method, 0, start(method), batch_of(), STEP, (0.75, 0.0))
    total = 0.5 * found["alignment"] + found["consistency"]
    np.testing.assert_allclose(found["loss"], total, rtol=1e-6)
    assert float(found["alignment"]) > 0


def test_a_stopped_branch_is_a_constant(setting):
    """The gradient is that of the first branch against values that do not move."""
    own = {"align_weight": 1.0, "stop_gradient": True}
    method = build(config_of(**own))
    state = start(method)
    ours, found = gradients(method, 0, state, batch_of(), STEP, RATIOS)
    free = build(config_of(align_weight=1.0))
    whole, same = gradients(free, 0, state, batch_of(), STEP, RATIOS)
    np.testing.assert_allclose(found["loss"], same["loss"], rtol=1e-6)
    # Of what both gradients are made of, this is the second branch's part.
    rest = jax.tree.map(jnp.subtract, whole, ours)
    sizes = [
        float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(t))) for t in (ours, rest)
    ]
    assert 0.3 < sizes[0] / sizes[1] < 3


def test_two_equal_crops_are_one(setting):
    """The second crop's path, given the same crop, aligns as the first's does."""
    own = {"align_on": "decoder", "align_weight": 1.0}
    same, crop = build(config_of(**own)), build(config_of(**own, other_view="crop"))
    state, batch = start(same), batch_of()
    pair = {**batch, "other_image": batch["image"], "other_view": batch["view"]}
    _, one = gradients(same, 0, state, batch, STEP, RATIOS)
    _, two = gradients(crop, 0, state, pair, STEP, RATIOS)
    np.testing.assert_allclose(one["alignment"], two["alignment"], rtol=1e-4)
    assert float(two["overlap"]) == 1
    assert streams(config_of(**own, other_view="crop")) == {"train": Stream(pairs=True)}


def test_infonce_in_closed_form():
    rng = np.random.default_rng(1)
    q, k = (rng.normal(size=(4, 3, 5)) for _ in range(2))
    weight = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 1]], float)
    found = info_nce(*map(jnp.asarray, (q, k, weight)), temperature=0.3, images=2)
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    total = 0.0
    for image in range(4):
        pool = v[image // 2 * 2 : image // 2 * 2 + 2].reshape(-1, 5)
        for patch in range(3):
            logits = pool @ u[image, patch] / 0.3
            own = logits[image % 2 * 3 + patch]
            loss = np.log(np.exp(logits).sum()) - own
            total += weight[image, patch] * loss
    np.testing.assert_allclose(found, total / weight.sum(), rtol=1e-5)
    nothing = jnp.zeros_like(weight)
    assert float(info_nce(q, k, nothing, temperature=1.0, images=4)) == 0


def test_uniformity_in_closed_form():
    """Of orthogonal class tokens only i = j is left; of equal ones all pairs are."""
    np.testing.assert_allclose(uniformity(3 * jnp.eye(4)), 1 / 4, rtol=1e-6)
    np.testing.assert_allclose(uniformity(jnp.ones((4, 2))), 1, rtol=1e-6)


@pytest.mark.parametrize("negative", ["infonce", "uniformity"])
def test_negatives_are_weighed_in(negative):
    method = build(config_of(negative=negative, negative_weight=0.01))
    _, found = gradients(method, 0, start(method), batch_of(), STEP, RATIOS)
    without = found["alignment"] / 4 + found["consistency"]
    np.testing.assert_allclose(
        found["loss"], without + 0.01 * found["negatives"], rtol=1e-6
    )
    assert float(found["negatives"]) > 0


def test_it_costs_two_passes():
    config = config_of(other_ratio=0.5)
    model = make_autoencoder(config)
    method = build(config)
    found = method.flops(method.phase(0, {}))
    assert found == training_flops(model, 0.75) + training_flops(model, 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"align_weight": 0.0, "consistency_weight": 0.0}, "nothing is asked"),
        ({"align_weight": -1.0}, "finite number >= 0"),
        ({"negative": "infonce"}, "exactly where negative names some"),
        ({"negative_weight": 0.1}, "exactly where negative names some"),
        ({"negative": "nce"}, "infonce"),
        (
            {"negative": "infonce", "negative_weight": 1.0, "negative_images": 3},
            "divide the batch of 16",
        ),
        ({"other_view": "crop"}, "pixels of two crops"),
        ({"align_on": "latent"}, "encoder"),
        ({"ratio": 1.0}, "< 1"),
        ({"ratio": 0.99}, "keep and hide at least one"),
        ({"temperature": 0.0}, "> 0"),
    ],
)
def test_bad_fields_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        validate(config_of(**changes))
    assert "\n" not in str(error.value) and "config.method." in str(error.value)


def test_a_decoder_without_blocks_has_no_tokens_to_align():
    config = config_of(align_on="decoder")
    config.model.decoder_depth = 0
    with pytest.raises(ConfigError, match="decoder_depth = 0"):
        validate(config)


def test_guidance_by_exploitation_needs_decoder_blocks():
    config = tiny_config("self_guided")
    config.model.decoder_depth = 0
    with pytest.raises(ConfigError, match="decoder_depth = 0"):
        validate(config)


def test_it_resumes_bit_equal_with_two_crops(tmp_path):
    """The second crop is drawn again as it was; kills are in tests/fault."""
    import shutil

    changes = {
        "method__name": "lc_mae",
        "method__other_view": "crop",
        "method__align_on": "encoder",
        "model__decoder_depth": 0,
    }
    run = tmp_path / "run"
    assert main(arguments(run, **changes)) == 0
    before = losses(run)
    for step in (6, 8):
        shutil.rmtree(run / "checkpoints" / str(step))
    assert main(arguments(run, **changes)) == 0
    assert losses(run) == before
