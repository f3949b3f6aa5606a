"""The one forward and the maskless encode: shapes, contracts, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import select
from sgmae_jax.models import Decoder, Encoder
from tests.models.tiny import (
    autoencoder,
    encode,
    images_for,
    predict,
    scores_for,
)


@pytest.mark.parametrize("channels", [1, 4, 5])
@pytest.mark.parametrize("grid, patch", [((3, 2), (2, 2)), ((1, 5), (4, 2))])
def test_any_grid_and_channels(grid, patch, channels):
    model = autoencoder(grid=grid, patch_size=patch, channels=channels, depth=1)
    tokens, values = grid[0] * grid[1], patch[0] * patch[1] * channels
    images, mask = images_for(model), select(scores_for(model), 2)

    def run():
        params = model.init(jax.random.key(0))
        return predict(model, params, images, mask), encode(model, params, images)

    got, encoded = jax.eval_shape(run)
    assert got.tokens.shape == (2, tokens, values)
    assert got.cls.shape == (2, values)
    assert got.latent.shape == (2, 3, 24)
    assert encoded.cls.shape == (2, 24)
    assert encoded.patches.shape == (2, tokens, 24)
    assert encoded.captured == {}


def test_encode_is_predict_with_nothing_hidden(model, params):
    images = images_for(model)
    scores = jnp.tile(jnp.arange(12.0), (2, 1))
    latent = predict(model, params, images, select(scores, 12)).latent
    encoded = encode(model, params, images)
    np.testing.assert_allclose(latent[:, 0], encoded.cls, atol=1e-6)
    np.testing.assert_allclose(latent[:, 1:], encoded.patches, atol=1e-6)


def test_without_the_last_norm_it_is_the_stream(model, params):
    images = images_for(model)
    found = jax.jit(lambda p: model.encode(p, images, normed=False))(params)
    stream = jax.jit(lambda p: model.stream(p, images, model.encoder.depth))(params)
    np.testing.assert_allclose(found.cls, stream[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.patches, stream[:, 1:], atol=1e-5)


def test_hidden_pixels_do_not_matter(model, params):
    images = images_for(model)
    mask = select(scores_for(model), 4)
    first = predict(model, params, images, mask)
    patches = model.patches(images)
    tokens = model.encoder.apply(
        {"params": params["encoder"]},
        patches + 7 * mask.hidden[..., None],
        method="embed",
    )
    second = jax.jit(model.predict)(params, tokens, mask)
    np.testing.assert_array_equal(first.tokens, second.tokens)


def test_order_of_kept_tokens_does_not_matter(model, params):
    """Both masks keep tokens 0..3; only the order of their slots differs."""
    images = images_for(model)
    scores = jnp.tile(jnp.arange(12.0), (2, 1))
    swapped = scores.at[:, :4].set(scores[:, 3::-1])
    one = predict(model, params, images, select(scores, 4))
    other = predict(model, params, images, select(swapped, 4))
    np.testing.assert_allclose(one.tokens, other.tokens, atol=2e-6)


def test_padded_plan_equals_compact_plan(model, params):
    images, scores = images_for(model), scores_for(model)
    compact = predict(model, params, images, select(scores, 4))
    padded = predict(
        model, params, images, select(scores, 9, count=jnp.asarray([4, 4]))
    )
    for ours, expected in (
        (padded.tokens, compact.tokens),
        (padded.cls, compact.cls),
        (padded.latent[:, :5], compact.latent),
    ):
        largest = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * largest)


def test_counts_may_differ_by_example(model, params):
    images, scores = images_for(model), scores_for(model)
    both = predict(model, params, images, select(scores, 9, count=jnp.asarray([2, 9])))
    for i, count in enumerate((2, 9)):
        alone = predict(
            model, params, images[i : i + 1], select(scores[i : i + 1], count)
        )
        np.testing.assert_allclose(both.tokens[i], alone.tokens[0], atol=2e-6)


def test_padding_changes_no_gradient(model, params):
    images, scores = images_for(model), scores_for(model)

    def loss(params, mask):
        return jnp.square(predict(model, params, images, mask).tokens).mean()

    gradient = jax.jit(jax.grad(loss))
    compact = gradient(params, select(scores, 4))
    padded = gradient(params, select(scores, 9, count=jnp.asarray([4, 4])))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), compact, padded
    )


def test_gate_multiplies_tokens(model, params):
    images = images_for(model)
    mask = select(scores_for(model), 4)
    gate = jnp.linspace(0.5, 1.5, 12) * jnp.ones((2, 1))
    tokens = model.embed(params, images)
    apply = jax.jit(model.predict)
    gated = apply(params, tokens, mask._replace(gate=gate))
    by_hand = apply(params, tokens * gate[..., None], mask)
    np.testing.assert_array_equal(gated.tokens, by_hand.tokens)
    gradient = jax.grad(
        lambda gate: apply(params, tokens, mask._replace(gate=gate)).tokens.sum()
    )(gate)
    support = np.asarray(gradient) != 0
    np.testing.assert_array_equal(support, mask.hidden == 0)


def test_uint8_is_normalised(model, params):
    images = jax.random.randint(jax.random.key(0), (2, 6, 12, 3), 0, 256, jnp.uint8)
    by_hand = (np.asarray(images, np.float32) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(model.normalise(images), by_hand, atol=1e-6)
    np.testing.assert_allclose(
        encode(model, params, images).cls, encode(model, params, by_hand).cls, atol=1e-5
    )


def test_shallower_encoder_runs_on_sliced_parameters(model, params):
    images = images_for(model)
    captured = encode(model, params, images, capture=("features", "attention")).captured
    for depth in (1, 2):
        shallow = dataclasses.replace(model, encoder=model.encoder.clone(depth=depth))
        encoder = dict(params["encoder"])
        encoder["blocks"] = jax.tree.map(lambda x, d=depth: x[:d], encoder["blocks"])
        got = encode(
            shallow, {"encoder": encoder}, images, capture=("features", "attention")
        ).captured
        for name, array in got.items():
            np.testing.assert_allclose(array, captured[name][:depth], atol=1e-6)


def test_capture(model, params):
    images = images_for(model)
    mask = select(scores_for(model), 4)
    got = predict(model, params, images, mask, capture=("features", "attention"))
    shapes = jax.tree.map(jnp.shape, got.captured)
    assert shapes == {
        "encoder": {"features": (3, 2, 5, 24), "attention": (3, 2, 3, 5, 5)},
        "decoder": {"features": (2, 2, 13, 16), "attention": (2, 2, 2, 13, 13)},
    }
    np.testing.assert_allclose(
        got.captured["decoder"]["attention"].sum(-1), 1, atol=1e-5
    )
    plain = predict(model, params, images, mask)
    assert plain.captured == {"encoder": {}, "decoder": {}}
    np.testing.assert_allclose(plain.tokens, got.tokens, atol=1e-6)
    stream = got.captured["encoder"]["features"][-1]
    centred = stream - stream.mean(-1, keepdims=True)
    norm = params["encoder"]["norm"]
    last = centred / jnp.sqrt(stream.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(
        last * norm["scale"] + norm["bias"], got.latent, atol=1e-5
    )


def test_padding_slots_are_never_attended_to(model, params):
    mask = select(scores_for(model), 6, count=jnp.asarray([2, 6]))
    got = predict(model, params, images_for(model), mask, capture=("attention",))
    maps = got.captured["encoder"]["attention"]
    np.testing.assert_array_equal(maps[:, 0, :, :, 3:], 0)
    assert (maps[:, 1] > 0).all()


def test_one_compilation_for_all_masks_of_a_size(model, params):
    images, traces = images_for(model), 0

    @jax.jit
    def forward(params, mask):
        nonlocal traces
        traces += 1
        return model.predict(params, model.embed(params, images), mask).tokens

    for seed in range(3):
        forward(params, select(scores_for(model, seed=seed), 4))
    assert traces == 1
    forward(params, select(scores_for(model), 5))
    assert traces == 2


@pytest.mark.parametrize(
    "shape, words",
    [
        ((2, 6, 10, 3), r"6, 12, 3.*\[2, 6, 10, 3\]"),
        ((2, 12, 6, 3), r"6, 12, 3.*\[2, 12, 6, 3\]"),
        ((2, 6, 12, 1), r"6, 12, 3.*\[2, 6, 12, 1\]"),
        ((6, 12, 3), r"6, 12, 3.*\[6, 12, 3\]"),
    ],
)
def test_wrong_images_name_both_sides(model, params, shape, words):
    with pytest.raises(ValueError, match=words):
        model.encode(params, jnp.zeros(shape))


SIZES = {"grid": (2, 2), "width": 8, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: Encoder(patch_values=4, **SIZES | {"heads": 3}), "8 .* 3 heads"),
        (lambda: Encoder(patch_values=4, **SIZES | {"depth": 0}), "depth 0"),
        (lambda: Encoder(patch_values=4, unroll=0, **SIZES), "unroll 0"),
        (lambda: Encoder(patch_values=4, attention="flash", **SIZES), "flash.*cudnn"),
        (lambda: Encoder(patch_values=4, remat="all", **SIZES), "all.*full"),
        (lambda: Encoder(patch_values=4, positions="none", **SIZES), "none.*sincos"),
        (lambda: Encoder(patch_values=4, attention="cudnn", **SIZES), "not in float32"),
        (lambda: Decoder(out_values=4, attention="cudnn", **SIZES), "not in float32"),
        (
            lambda: Encoder(
                patch_values=4, attention="cudnn", dtype="bfloat16", **SIZES
            ),
            "8 / 2 gives 4",
        ),
    ],
)
def test_bad_fields_are_refused_at_construction(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"channels": 4}, "24 values.* 18"),
        ({"patch_size": (2, 2)}, "12 values.* 18"),
        ({"mean": (0.5,)}, "1 means"),
        ({"decoder": Decoder(out_values=18, **SIZES)}, r"\(2, 6\) and \(2, 2\)"),
    ],
)
def test_parts_must_agree(model, change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(model, **change)


def test_batch_shards_need_no_communication(model, params):
    """Flattening tokens into rows must not make devices exchange activations."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    by_example = jax.NamedSharding(mesh, jax.P("data"))
    inputs = (images_for(model, batch=16), select(scores_for(model, batch=16), 4))
    images, mask = jax.device_put(inputs, by_example)
    everywhere = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
    text = predict.lower(model, everywhere, images, mask).compile().as_text()
    assert "while" in text
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in text


def test_unknown_capture(model, params):
    with pytest.raises(ValueError, match="gradients"):
        encode(model, params, images_for(model), capture=("gradients",))
