"""Which part of an image is the object, and the mask and hints that follow from it."""

from functools import cache, partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import (
    Context,
    check_mask_fn,
    guide,
    guided_mask,
    informed_mask,
    num_keep,
)
from tests.masking.generators import assert_valid, keys_of, properties, seeds
from tests.masking.graphs import SIDE, TOKENS, two_patterns

IMAGES = 4
GRID = (SIDE, SIDE)
RELATIONS = ("cosine", "attention")
SIDES = ("cls_attention", "seed", "size", "border")
every_rule = pytest.mark.parametrize(
    "relation, side", [(one, two) for one in RELATIONS for two in SIDES]
)


@cache
def easy():
    """Features and attention in which the disc is the object, and where it is."""
    features, disc = two_patterns(IMAGES, noise=0.5)
    rng = np.random.default_rng(0)
    together = disc[:, :, None] == disc[:, None, :]
    scores = rng.standard_normal((IMAGES, 2, 1 + TOKENS, 1 + TOKENS))
    scores[:, :, 1:, 1:] += 3 * together[:, None]
    scores[:, :, 0, 1:] += 2 * disc[:, None]  # what the class token looks at
    return jnp.asarray(features), jax.nn.softmax(jnp.asarray(scores, "float32")), disc


def moved(order):
    """The same with the patches in another order."""
    features, attention, disc = easy()
    rows = np.concatenate([[0], 1 + order])
    return features[:, order], attention[:, :, rows][..., rows], disc[:, order]


def mask_of(guidance, ratio=0.75, seed=0):
    """Without hints, straight from the relevance."""
    images = len(guidance.relevance)
    return informed_mask(keys_of(seed, range(images)), guidance.relevance, ratio=ratio)


# Which part is the object.


@every_rule
def test_the_disc_is_found_and_hidden_completely(relation, side):
    features, attention, disc = easy()
    found = guide(features, attention, relation=relation, side=side, grid=GRID)
    assert not found.degenerate.any()
    np.testing.assert_array_equal(found.object, disc)
    inside = np.where(disc, found.relevance, np.inf).min(-1)
    outside = np.where(disc, -np.inf, found.relevance).max(-1)
    assert (inside > outside).all()
    mask = mask_of(found)
    assert_valid(jax.tree.map(np.asarray, mask), 49)
    assert (np.asarray(mask.hidden)[disc] == 1).all()


def test_relevance_is_the_mean_cosine_with_the_object():
    features, attention, _ = easy()
    found = guide(features, attention)
    x = np.asarray(features, np.float64)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    for unit, chosen, relevance in zip(x, found.object, found.relevance, strict=True):
        mean = unit[np.asarray(chosen)].mean(0)
        np.testing.assert_allclose(relevance, unit @ mean, atol=1e-6)


# Four by four patches; five of them are one thing, and the rest another.
SMALL = np.isin(np.arange(16), [0, 1, 4, 5, 6])


def by_hand(looked_at):
    """Two exact patterns, and a class token that looks at one of them."""
    features = np.where(SMALL[:, None], [1.0, 0.2, 0.0], [0.0, 0.2, 1.0])
    scores = np.zeros((1, 2, 17, 17))
    scores[:, 0, 0, 1:] = 3.0 * looked_at - 1.0  # one head only
    return jnp.asarray(features, "float32")[None], jax.nn.softmax(jnp.asarray(scores))


@pytest.mark.parametrize(
    "side, looked_at, expected",
    [
        ("cls_attention", SMALL, SMALL),
        ("cls_attention", ~SMALL, ~SMALL),
        ("size", ~SMALL, SMALL),
        ("seed", ~SMALL, SMALL),  # entries of the smaller part are larger
    ],
)
def test_each_rule_chooses_its_side(side, looked_at, expected):
    features, attention = by_hand(looked_at)
    found = guide(features, attention, side=side)
    np.testing.assert_array_equal(found.object[0], expected)
    assert not found.degenerate.any()


def test_the_class_token_s_look_is_a_mean_a_patch_not_a_sum():
    """Eleven patches together get more of it than five, each of them less."""
    scores = np.where(SMALL, np.log(1.5), 0.0)
    attention = np.zeros((1, 1, 17, 17))
    attention[0, 0, :, 1:] = scores
    attention = jax.nn.softmax(jnp.asarray(attention))
    of_small = attention[0, 0, 0, 1:][SMALL].sum()
    assert of_small < attention[0, 0, 0, 1:][~SMALL].sum()
    found = guide(by_hand(SMALL)[0], attention)
    np.testing.assert_array_equal(found.object[0], SMALL)


def test_of_two_equal_parts_size_takes_one():
    half = np.arange(16) < 8
    features = np.where(half[:, None], [1.0, 0.2, 0.0], [0.0, 0.2, 1.0])
    found = guide(jnp.asarray(features, "float32")[None], side="size")
    assert found.object.sum() == 8 and not found.degenerate.any()


@pytest.mark.parametrize("threshold", ["zero", "mean"])
def test_the_threshold_is_where_it_says(threshold):
    features = two_patterns(IMAGES, noise=3.0)[0]  # no gap between the parts
    found = guide(jnp.asarray(features), side="seed", threshold=threshold)
    y = np.asarray(found.cut.vector)
    level = y.mean(-1, keepdims=True) if threshold == "mean" else 0
    np.testing.assert_array_equal(found.object, y > level)
    assert ((y > 0) != (y > y.mean(-1, keepdims=True))).any()


def test_weak_relations_do_not_join_where_tau_says_so():
    """Three groups on an arc, 40 degrees apart: 2 between the ends, 1 in the middle."""
    angle = np.deg2rad(np.repeat([0.0, 40.0, 80.0], [6, 6, 4]))
    features = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], -1), "float32")
    cosines = np.cos(angle[:, None] - angle)
    for tau in (0.5, 0.9):
        kept = np.where(cosines > tau, cosines, 0)
        weights = kept / kept.mean() + 1e-5
        scale = weights.sum(-1) ** -0.5
        mu = np.linalg.eigvalsh(weights * scale[:, None] * scale)
        found = guide(features[None], side="seed", tau=tau)
        np.testing.assert_allclose(found.cut.eigenvalue, 1 - mu[-2], atol=1e-5)
    assert found.cut.eigenvalue[0] < 1e-3  # at 0.9 the groups are apart


# What changes nothing.


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("relation", RELATIONS)
def test_a_mirrored_image_has_a_mirrored_object_and_mask(axis, relation):
    order = np.flip(np.arange(TOKENS).reshape(GRID), axis).reshape(-1)
    one = guide(*easy()[:2], relation=relation)
    two = guide(*moved(order)[:2], relation=relation)
    np.testing.assert_array_equal(np.asarray(one.object)[:, order], two.object)
    np.testing.assert_allclose(
        np.asarray(one.relevance)[:, order], two.relevance, atol=1e-6
    )
    # Up to tokens whose relevance is within rounding of the last hidden one's.
    sure = np.sort(one.relevance, -1)[:, 48:50].mean(-1, keepdims=True)
    sure = np.abs(np.asarray(two.relevance) - sure) > 1e-6
    hidden = np.asarray(mask_of(one).hidden)[:, order]
    assert sure.mean() > 0.95
    np.testing.assert_array_equal(hidden[sure], np.asarray(mask_of(two).hidden)[sure])


@properties
@given(seed=seeds)
def test_any_order_of_the_patches_gives_the_same_object(seed):
    order = np.random.default_rng(seed).permutation(TOKENS)
    features, attention, disc = moved(order)
    found = guide(features, attention)
    np.testing.assert_array_equal(found.object, disc)
    expected = np.asarray(guide(*easy()[:2]).relevance)[:, order]
    np.testing.assert_allclose(found.relevance, expected, atol=1e-6)


@pytest.mark.parametrize("tokens", [slice(None), slice(3, 5)])
@pytest.mark.parametrize("exponent", [-100, -40, 40, 100])
def test_the_unit_of_the_features_does_not_matter(exponent, tokens):
    features, attention, _ = easy()
    scaled = features.at[:, tokens].multiply(2.0**exponent)
    one, two = (guide(x, attention) for x in (features, scaled))
    for leaf, other in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_narrow_features_are_widened_first():
    features, attention, _ = easy()
    narrow = features.astype(jnp.bfloat16)
    one = guide(narrow, attention.astype(jnp.bfloat16))
    two = guide(narrow.astype(jnp.float32), attention)
    assert one.relevance.dtype == one.cut.vector.dtype == jnp.float32
    np.testing.assert_array_equal(one.relevance, two.relevance)


def test_an_image_does_not_know_its_batch():
    features, attention, _ = easy()
    whole = guide(features, attention)
    alone = jax.vmap(lambda x, a: guide(x[None], a[None]))(features, attention)
    np.testing.assert_array_equal(whole.object, alone.object[:, 0])
    np.testing.assert_allclose(whole.relevance, alone.relevance[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "relation, side", [("cosine", "seed"), ("attention", "cls_attention")]
)
def test_no_gradient_reaches_features_or_attention(relation, side):
    features, attention, _ = easy()
    features = features.at[1].set(1.0).at[2].set(0.0)  # nor NaN from degenerate ones

    def total(features, attention):
        found = guide(features, attention, relation=relation, side=side)
        context = Context(grid=GRID, features=features, attention=attention)
        mask = guided_mask(
            keys_of(0, range(IMAGES)), context, ratio=0.75, relation=relation, side=side
        )
        values = (found.relevance, *found.cut, mask.hidden, mask.gate, mask.loss_weight)
        return sum(value.sum() for value in values)

    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(features, attention):
        assert not gradient.any()


# Nothing to find.


def alike(rng):
    return np.tile(rng.standard_normal(64), (TOKENS, 1))


def scaled_alike(rng):
    return alike(rng) * rng.uniform(0.1, 9, (TOKENS, 1))


def almost_alike(rng):
    return alike(rng) + 1e-4 * rng.standard_normal((TOKENS, 64))


def zero(rng):
    return np.zeros((TOKENS, 64))


def all_unlike(rng):
    return np.linalg.qr(rng.standard_normal((TOKENS, TOKENS)))[0]


def one_token_object(rng):
    features = alike(rng) + 0.1 * rng.standard_normal((TOKENS, 64))
    features[17] *= -1
    return features


def not_a_number(rng):
    features = rng.standard_normal((TOKENS, 64))
    features[3, 5] = np.nan
    return features


def infinite(rng):
    features = rng.standard_normal((TOKENS, 64))
    features[3, 5] = -np.inf
    return features


NOTHING = [
    alike, scaled_alike, almost_alike, zero, all_unlike, one_token_object,
    not_a_number, infinite,
]  # fmt: skip


def finite(found):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("features", NOTHING)
@pytest.mark.fault(15)
def test_an_image_with_nothing_to_find_is_counted_and_masked_at_random(features):
    features = features(np.random.default_rng(0))
    attention = easy()[1][:1]
    found = guide(jnp.asarray(features, "float32")[None], attention)
    assert found.degenerate.all() and not found.object.any()
    assert finite(found)
    np.testing.assert_array_equal(found.relevance, 0)
    first, other = (mask_of(found, seed=seed) for seed in (0, 1))
    for mask in (first, other):
        assert_valid(jax.tree.map(np.asarray, mask), 49)
    assert (first.hidden != other.hidden).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["features", "attention"])
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.fault(15)
def test_a_bad_number_stays_in_its_image(value, where, relation):
    good = easy()[:2]
    bad = list(good)
    place = ["features", "attention"].index(where)
    bad[place] = bad[place].at[(1, *(0,) * (bad[place].ndim - 1))].set(value)
    usual, found = (guide(*both, relation=relation) for both in (good, bad))
    np.testing.assert_array_equal(found.degenerate, [False, True, False, False])
    assert finite(found)
    for leaf, other in zip(jax.tree.leaves(usual), jax.tree.leaves(found), strict=True):
        rows = [0, 2, 3]
        np.testing.assert_array_equal(leaf[np.array(rows)], other[np.array(rows)])


@pytest.mark.parametrize("features", [zero, alike])
@pytest.mark.fault(15)
def test_attention_that_says_nothing_is_counted(features):
    features = jnp.asarray(features(np.random.default_rng(0)), "float32")[None]
    for attention in (jnp.full((1, 2, 197, 197), 1 / 197), jnp.zeros((1, 2, 197, 197))):
        found = guide(features, attention, relation="attention")
        assert found.degenerate.all() and finite(found)


@pytest.mark.fault(15)
def test_some_zero_vectors_and_duplicates_are_no_reason_to_give_up():
    features, attention, disc = easy()
    features = features.at[:, 5].set(0)
    features = features.at[:, 6].set(features[:, 7])
    found = guide(features, attention)
    assert not found.degenerate.any() and finite(found)
    others = ~np.isin(np.arange(TOKENS), [5, 6])
    np.testing.assert_array_equal(found.object[:, others], disc[:, others])
    np.testing.assert_array_equal(found.relevance[:, 5], 0)


@pytest.mark.parametrize(
    "grid, relation",
    [((1, 1), "cosine"), ((1, 1), "attention"), ((1, 2), "cosine")]
    + [((3, 1), "cosine"), ((2, 2), "attention"), ((5, 3), "cosine")],
)
@pytest.mark.fault(15)
def test_small_and_oblong_grids(grid, relation):
    tokens = grid[0] * grid[1]
    part = np.arange(tokens) < tokens // 2
    features = np.where(part[:, None], [1.0, 0.3], [0.3, 1.0])[None]
    attention = np.pad(part[:, None] == part, ((1, 0), (1, 0)), constant_values=1)
    attention = attention / attention.sum(-1, keepdims=True)
    found = guide(
        jnp.asarray(features, "float32"),
        jnp.asarray(attention, "float32")[None, None],
        relation=relation,
    )
    assert finite(found)
    # A part of fewer than two tokens is no object.
    assert found.degenerate.all() == (tokens < 4)
    for ratio in (0.0, 0.5, 0.75, 1.0):
        mask = jax.tree.map(np.asarray, mask_of(found, ratio))
        assert_valid(mask, num_keep(tokens, ratio))


wild = hnp.arrays(
    np.float32,
    (3, 6, 4),
    elements=st.sampled_from([0.0, -0.0, 1.0, -2.0, 1e30, 1e-40, np.nan, np.inf]),
)


@properties
@given(features=wild, seed=seeds)
@pytest.mark.fault(15)
def test_whatever_the_features_the_mask_is_valid(features, seed):
    attention = jax.nn.softmax(
        jax.random.normal(jax.random.key(seed), (3, 2, 7, 7)), axis=-1
    )
    found = guide(jnp.asarray(features), attention)
    assert finite(found)
    assert (~np.isfinite(features).all((1, 2)) <= np.asarray(found.degenerate)).all()
    context = Context(grid=(2, 3), features=features, attention=attention)
    mask = guided_mask(keys_of(seed, range(3)), context, ratio=0.5, hint_ratio=0.4)
    assert_valid(jax.tree.map(np.asarray, mask), 3)


# In one call.


@pytest.mark.parametrize(
    "relation, side", [("cosine", "cls_attention"), ("attention", "size")]
)
def test_the_checker_accepts_it(relation, side):
    check_mask_fn(
        guided_mask,
        grid=(7, 7),
        ratio=0.75,
        options={"relation": relation, "side": side, "layer": 3},
    )


def test_arrays_stand_for_every_layer_and_need_not_be_jax_s():
    features, attention, disc = easy()
    keys = keys_of(0, range(IMAGES))
    given = {"features": np.asarray(features), "attention": np.asarray(attention)}
    plain = guided_mask(keys, Context(grid=GRID, **given), ratio=0.75, hint_ratio=0.0)
    asked = []

    def layer(array, number):
        asked.append(number)
        return array

    lazy = Context(
        grid=GRID,
        features=partial(layer, features),
        attention=partial(layer, attention),
    )
    by_layer = guided_mask(keys, lazy, ratio=0.75, hint_ratio=0.0)
    assert asked == [-2, -2]
    for one, two in zip(plain[:5], by_layer[:5], strict=True):
        np.testing.assert_array_equal(one, two)
    assert (np.asarray(plain.hidden)[disc] == 1).all()


def test_attention_is_not_asked_for_where_it_is_not_needed():
    context = Context(grid=GRID, features=easy()[0])  # asking would raise
    mask = guided_mask(keys_of(0, range(IMAGES)), context, ratio=0.75, side="size")
    assert mask.hidden.shape == (IMAGES, TOKENS)


def test_hints_decay_by_schedule_without_recompiling():
    features, attention, _ = easy()
    keys, traces = keys_of(0, range(IMAGES)), []

    @jax.jit
    def step(number, features, attention):
        traces.append(number)
        context = Context(GRID, None, number, features, attention)
        mask = guided_mask(
            keys, context, ratio=0.75,
            hint_ratio=0.4, hint_ratio_end=0.0, hint_steps=100,
        )  # fmt: skip
        return mask.hidden

    top, shown = np.asarray(mask_of(guide(features, attention)).hidden), []
    for number in (0, 25, 50, 75, 100, 1000):
        hidden = np.asarray(step(number, features, attention))
        np.testing.assert_array_equal(hidden.sum(-1), 147)
        shown.append(float((top * (1 - hidden)).sum(-1).mean()))
    assert len(traces) == 1 and step._cache_size() == 1
    # 59, 44, 29, 15 and no hints; about 49 / (49 + hints) of them stay visible.
    expected = [h * 49 / (49 + h) for h in (59, 44, 29, 15, 0, 0)]
    np.testing.assert_allclose(shown, expected, atol=4)
    assert shown == sorted(shown, reverse=True) and shown[-2:] == [0, 0]


GOOD = {"relation": "cosine", "side": "size"}


@pytest.mark.parametrize(
    "options, word",
    [
        ({"relation": "euclid"}, "relation must be one of cosine, attention"),
        ({"side": "left"}, "side must be one of cls_attention, seed, size"),
        ({"threshold": "median"}, "threshold must be one of zero, mean"),
        ({"hint_mode": "best"}, "hint_mode must be one of random, similarity"),
        ({"steps": 0}, "steps"),
        ({"tau": -0.5}, "tau must be >= 0"),
        ({"ratio": 1.5}, "ratio must be in"),
        ({"hint_ratio": -0.1}, "hint ratios"),
        ({"hint_ratio_end": 1.1}, "hint ratios"),
        ({"hint_steps": 0}, "hint_steps"),
        ({"side": "cls_attention"}, "asks for attention of layer -2"),
        ({"features": None}, "asks for features of layer -2"),
        ({"features": jnp.ones((2, 17, 4))}, "without the class token"),
        ({"features": jnp.ones((2, 64))}, "axes"),
        ({"side": "cls_attention", "attention": jnp.ones((2, 1, 16, 16))}, "17"),
        ({"side": "cls_attention", "attention": jnp.ones((2, 17, 17))}, "class token"),
        ({"side": "cls_attention", "attention": jnp.ones((3, 1, 17, 17))}, "3, 1"),
    ],
)
def test_bad_arguments_are_named(options, word):
    options = {"ratio": 0.75, **GOOD, **options}
    names = ("features", "attention")
    given = {"features": jnp.ones((2, 16, 4))} | {
        name: options.pop(name) for name in names if name in options
    }
    with pytest.raises(ValueError, match=word):
        guided_mask(keys_of(0, range(2)), Context(grid=(4, 4), **given), **options)


def test_attention_that_is_needed_and_missing_is_named():
    with pytest.raises(ValueError, match="needs the attention maps"):
        guide(jnp.ones((1, 4, 2)), relation="attention", side="size")
    with pytest.raises(ValueError, match="needs the attention maps"):
        guide(jnp.ones((1, 4, 2)))
