"""Analyses A to G in cases where the answer is known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.analysis.bootstrap import draws_of, mean_interval, statistic_interval
from sgmae_jax.analysis.decoder_maps import by_position, position_attention
from sgmae_jax.analysis.findings import findings, shown
from sgmae_jax.analysis.invariance import (
    geometry,
    invariance,
    same_token_similarity,
    spearman,
)
from sgmae_jax.analysis.laboratory import Laboratory, Look
from sgmae_jax.analysis.metrics import attention_distance
from sgmae_jax.analysis.receptive import profile, radii, receptive_field
from sgmae_jax.analysis.samples import Samples
from sgmae_jax.analysis.similarity import layer_cka
from tests.models.tiny import GRID, autoencoder, images_for, noisy

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def _quick():
    from tests.conftest import quickly

    with quickly():
        yield


@pytest.fixture(scope="module")
def setting():
    model = autoencoder()
    return model, noisy(model.init(jax.random.key(0))), images_for(model, batch=4)


def test_intervals_hold_the_mean_and_shrink():
    rows = RNG.normal(3, 1, (400, 2))
    found = mean_interval(rows)
    for place in range(2):
        low, mean, high = (found[end][place] for end in ("low", "mean", "high"))
        np.testing.assert_allclose(mean, rows[:, place].mean())
        # Of 400 values of deviation 1: 1.96 / 20 on each side, within a tenth.
        assert low < mean < high
        np.testing.assert_allclose((high - low) / 2, 1.96 / 20, rtol=0.15)
    few = mean_interval(rows[:25])
    assert few["high"][0] - few["low"][0] > 2 * (found["high"][0] - found["low"][0])
    assert (draws_of(7).sum(1) == 7).all()


def test_what_is_not_finite_does_not_count():
    rows = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.inf]])
    found = mean_interval(rows)
    assert found["mean"] == [2.0, None] and found["high"][1] is None
    assert shown({"mean": None, "low": None, "high": None}) == "–"


def test_of_a_mean_both_intervals_agree():
    rows = RNG.normal(size=50)
    one = mean_interval(rows)
    two = statistic_interval(lambda w: w @ rows / w.sum(), 50, draws=1000)
    assert one["mean"] == pytest.approx(two["mean"])
    assert one["low"] == pytest.approx(two["low"], abs=1e-9)


def test_same_and_other_tokens_in_closed_form():
    """Orthogonal tokens: 1 to themselves, 0 to others; those not counted do not."""
    tokens = jnp.eye(4)[None] * jnp.array([1.0, 2.0, 3.0, 4.0])[:, None]
    counted = jnp.array([[1.0, 1.0, 1.0, 0.0]])
    found = same_token_similarity(tokens, tokens * 2, counted)
    np.testing.assert_allclose(found, [[1, 0]], atol=1e-6)
    alike = jnp.ones((1, 4, 3))
    np.testing.assert_allclose(
        same_token_similarity(alike, alike, counted), [[1, 1]], atol=1e-6
    )
    nobody = jnp.zeros((1, 4)).at[0, 0].set(1)
    assert np.isnan(same_token_similarity(alike, alike, nobody)).all()


def test_a_model_that_knows_only_places_is_invariant(setting):
    """With pixels cut off, tokens of one place are the same under all masks."""
    _, _, images = setting
    first = autoencoder(depth=1)
    one = first.init(jax.random.key(0))
    one["encoder"]["patch_embed"]["kernel"] *= 0
    # No attention: a block's branch that ends in zeros adds nothing.
    for part in ("encoder", "decoder"):
        one[part]["blocks"]["attn"]["proj"]["kernel"] *= 0
        one[part]["blocks"]["attn"]["proj"]["bias"] *= 0
    measure = functools.partial(invariance, first, ratio=0.5, seed=0, pairs=2)
    found = jax.jit(measure)(one, images, jnp.arange(4))
    for part in ("encoder", "decoder"):
        same = np.asarray(found[part])[..., 0]
        np.testing.assert_allclose(same, 1, atol=1e-5)
        assert (np.asarray(found[part])[..., 1] < 1 - 1e-3).all()


def test_geometry_of_a_copy_is_one_and_of_noise_is_not():
    patches = jnp.asarray(RNG.normal(size=(3, 12, 18)), jnp.float32)
    turn = np.linalg.qr(RNG.normal(size=(18, 18)))[0]
    copy = 3 * patches @ turn + 2
    np.testing.assert_allclose(geometry(copy, patches), 1, atol=1e-3)
    noise = jnp.asarray(RNG.normal(size=(3, 12, 18)), jnp.float32)
    assert np.abs(np.asarray(geometry(noise, patches))[:, 0]).max() < 0.5


def test_spearman_knows_ranks_and_ties():
    from scipy.stats import spearmanr

    x = RNG.integers(0, 5, (2, 30)).astype(np.float32)
    y = RNG.normal(size=(2, 30)).astype(np.float32)
    expected = [spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(x, y), expected, atol=1e-5)
    np.testing.assert_allclose(spearman(y, np.exp(y)), 1, atol=1e-6)
    assert np.isnan(spearman(np.ones((1, 4)), np.ones((1, 4)))).all()


def test_without_content_attention_is_that_of_positions(setting):
    """T5: exactly, in every layer; a random start with content is below 1."""
    model, params, images = setting
    measure = jax.jit(functools.partial(by_position, model, ratio=0.5, seed=0))
    found = np.asarray(measure(params, images))
    assert found.shape == (4, 2, 2)
    assert (found[:, 0] < 1 - 1e-4).all()
    empty = jax.tree.map(lambda x: x, params)
    embed = empty["decoder"]["embed"]
    empty["decoder"]["embed"] = {
        "kernel": jnp.zeros_like(embed["kernel"]),
        "bias": empty["decoder"]["mask_token"],
    }
    np.testing.assert_allclose(measure(empty, images), 1, atol=1e-5)
    alone = jax.jit(functools.partial(position_attention, model))(empty)
    assert alone.shape == (2, 13, 13)
    np.testing.assert_allclose(alone.sum(-1), 1, rtol=1e-5)


def test_attention_distance_of_some_queries():
    maps = RNG.random((2, 3, 13, 13)).astype(np.float32)
    every = attention_distance(maps, GRID)
    np.testing.assert_allclose(
        attention_distance(maps, GRID, jnp.ones((2, 12))), every, rtol=1e-5
    )
    one = jnp.zeros((2, 12)).at[:, 4].set(1)
    own = maps[..., 5, 1:] / maps[..., 5, 1:].sum(-1, keepdims=True)
    y, x = np.divmod(np.arange(12), GRID[1])
    far = np.hypot(y - y[4], x - x[4])
    np.testing.assert_allclose(
        attention_distance(maps, GRID, one), (own * far).sum(-1), rtol=1e-5
    )


def test_a_receptive_field_is_the_jacobian():
    """Of a known linear map, query by query, images apart."""
    weight = jnp.asarray(RNG.normal(size=(12, 12)), jnp.float32)
    inputs = jnp.asarray(RNG.normal(size=(2, 12, 3)), jnp.float32)
    queries = jnp.array([[0, 7], [3, 11]])
    visible = jnp.ones((2, 12)).at[:, 2].set(0)
    found = receptive_field(
        lambda x: jnp.einsum("nm,bmp->bnp", weight, x), inputs, queries, visible
    )
    expected = np.abs(np.asarray(weight))[np.asarray(queries)] * np.sqrt(3)
    expected[..., 2] = 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_radii_and_rings_of_known_fields():
    query = jnp.array([[0]])
    field = jnp.zeros((1, 1, 12)).at[0, 0, 0].set(6).at[0, 0, 1].set(3)
    field = field.at[0, 0, 2].set(1)
    np.testing.assert_allclose(radii(field, query, GRID), [[0, 1]])
    np.testing.assert_allclose(profile(field, query, GRID)[0, :3], [0.6, 0.3, 0.1])
    assert np.isnan(radii(field * 0, query, GRID)).all()


def test_cka_of_equal_turned_and_other_layers():
    x = RNG.normal(size=(1, 10, 12, 4))
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    same = layer_cka(x, 2 * x @ turn + 1, draws=20)
    np.testing.assert_allclose(same["mean"], 1, rtol=1e-6)
    other = layer_cka(x, RNG.normal(size=(2, 10, 12, 6)), draws=20)
    assert np.asarray(other["mean"]).shape == (1, 2)
    assert np.max(other["mean"]) < 0.2
    centred = (x - x.mean((1, 2), keepdims=True)).reshape(120, 4)
    y = RNG.normal(size=(120, 3)) + centred[:, :3]
    y -= y.mean(0)
    found = layer_cka(x, y.reshape(1, 10, 12, 3), draws=5)["mean"][0][0]
    norm = np.linalg.norm
    expected = norm(centred.T @ y) ** 2 / (norm(centred.T @ centred) * norm(y.T @ y))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="same images"):
        layer_cka(x, x[:, :5])


def test_a_bench_measures_everything_whatever_the_batch(setting, monkeypatch):
    """Five images in batches of two and the last padded, and all at once."""
    from sgmae_jax.analysis import laboratory

    model, params, _ = setting
    height, width = (g * p for g, p in zip(model.grid, model.patch_size, strict=True))
    images = RNG.integers(0, 256, (5, height, width, 3), np.uint8)
    samples = Samples(images, np.arange(5, dtype=np.int32), None)
    look = Look(0.5, True, masks=4, pairs=1)
    options = {"ratios": (0.02, 0.5, 0.97), "queries": 2}
    whole = Laboratory(model, samples, look, **options)
    assert whole.ratios == (0.5,)
    found = whole.measure(params)
    monkeypatch.setattr(laboratory, "batch_size", lambda model: 2)
    apart = Laboratory(model, samples, look, **options).measure(params)
    for name in ("encoder", "error", "geometry_prediction"):
        np.testing.assert_allclose(
            found[name]["mean"], apart[name]["mean"], rtol=1e-4, atol=1e-5
        )
    assert 0 <= found["variance_share"]["mean"] <= 1
    share = found["variance"]["mean"] + found["bias"]["mean"]
    np.testing.assert_allclose(share, found["error"]["mean"], rtol=1e-5)
    run = {
        "found": found,
        "over_training": {"0": found, "5": found},
        "window": None,
        "ratios": [0.5],
        "look": {"ratio": 0.5},
    }
    windowed = run | {"window": 1, "found": None}
    cka = {"a and b": layer_cka(whole.tokens(params), whole.tokens(params), draws=3)}
    page = findings({"a <b>": run, "w": windowed}, cka)
    for letter in "ABCDEFG":
        assert f"<h2>{letter}. " in page
    assert "<b>" not in page.split("<svg")[0].split("</table>")[0]
    assert "3 × 3" in page and "nan" not in page.lower()


def test_a_decoder_without_blocks_has_no_attention_to_measure(setting):
    model = autoencoder(depth=1)
    model = dataclasses.replace(model, decoder=model.decoder.clone(depth=0))
    height, width = (g * p for g, p in zip(model.grid, model.patch_size, strict=True))
    images = RNG.integers(0, 256, (2, height, width, 3), np.uint8)
    samples = Samples(images, np.arange(2, dtype=np.int32), None)
    bench = Laboratory(
        model, samples, Look(0.5, True, masks=4, pairs=1), ratios=(0.5,), queries=2
    )
    found = bench.measure(model.init(jax.random.key(0)))
    assert "position" not in found and found["decoder"]["mean"] == []
    # Hidden patches are told by their place: nothing varies with the mask.
    np.testing.assert_allclose(found["variance"]["mean"], 0, atol=1e-6)
