"""Masks from attention: counts, who is drawn, what follows from what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import (
    Context,
    attention_mask,
    attention_scores,
    guided_by_attention,
    mask_valid,
    num_keep,
    random_share,
)
from sgmae_jax.masking.attention import draw, round_half_even, rounded_share
from tests.masking.generators import keys_of

LENGTHS = [20, 13, 1, 7]
pytestmark = pytest.mark.usefixtures("quick_compilation")


def some(batch=4, heads=3, tokens=20, queries=None, seed=0):
    """(keys, attention, valid) of ragged rows."""
    rng = np.random.default_rng(seed)
    valid = np.arange(tokens) < np.array(LENGTHS[:batch])[:, None]
    logits = 2 * rng.standard_normal((batch, heads, queries or tokens, tokens))
    logits = np.where(valid[:, None, None], logits, -1e30)
    attention = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    return keys_of(seed, range(batch)), attention, jnp.asarray(valid)


@pytest.mark.parametrize("ratio", [0.15, 0.2, 0.3, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("random", [0.0, 0.3, 1.0])
def test_counts_are_exact_and_padding_is_never_masked(ratio, random):
    keys, attention, valid = some()
    scores = guided_by_attention(keys, attention, valid, ratio=ratio, per_query=3)
    mask = jax.tree.map(
        np.asarray, mask_valid(keys, scores, valid, ratio=ratio, random=random)
    )
    hide = np.round(np.float32(ratio) * np.float32(LENGTHS)).astype(int)
    np.testing.assert_array_equal(mask.loss_weight.sum(1), hide)
    assert not mask.loss_weight[~np.asarray(valid)].any()
    np.testing.assert_array_equal(
        mask.hidden, np.maximum(mask.loss_weight, ~np.asarray(valid))
    )
    np.testing.assert_array_equal(mask.keep_valid.sum(1), np.array(LENGTHS) - hide)
    for ids, real, hidden in zip(
        mask.ids_keep, mask.keep_valid, mask.hidden, strict=True
    ):
        np.testing.assert_array_equal(ids[real], np.flatnonzero(hidden == 0))


def test_products_are_rounded_in_float32_and_half_to_even():
    counts = jnp.array([30, 10, 28])
    np.testing.assert_array_equal(rounded_share(counts, 0.15), [4, 2, 4])
    assert round(0.15 * 30) == 4 and 0.15 * 30 == 4.5
    np.testing.assert_array_equal(rounded_share(counts, 0.2, 3), [2, 1, 2])
    assert round_half_even(30, 0.15) == 4


def test_all_heads_alike_make_mixed_and_mean_alike():
    keys, attention, valid = some()
    same = jnp.broadcast_to(attention[:, :1], attention.shape)
    options = {"ratio": 0.5, "per_query": 2}
    mean = guided_by_attention(keys, same, valid, heads="mean", **options)
    mixed = guided_by_attention(keys, same, valid, heads="random_mix", **options)
    np.testing.assert_allclose(mean, mixed, rtol=1e-6)


def test_scores_are_the_sum_of_chosen_rows():
    _, attention, _ = some()
    chosen = np.zeros((4, 20), bool)
    chosen[:, [2, 0]] = True
    head = np.random.default_rng(1).integers(0, 3, (4, 20))
    rows = np.asarray(attention)
    wanted = [
        sum(rows[b, head[b, q], q] for q in np.flatnonzero(chosen[b])) for b in range(4)
    ]
    found = attention_scores(attention, jnp.asarray(chosen), head=jnp.asarray(head))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    own = attention_scores(attention, jnp.asarray(chosen), mask_self=True)
    assert (np.asarray(own)[chosen] == 3).all()


def test_drawn_queries_are_masked_themselves():
    keys, attention, valid = some()
    scores = guided_by_attention(
        keys, attention, valid, ratio=0.3, per_query=3, mask_self=True
    )
    mask = mask_valid(keys, scores, valid, ratio=0.3)
    drawn = np.asarray(scores) == 3
    # A row of one input hides round(0.3) = 0 of it.
    assert (
        np.asarray(mask.loss_weight)[drawn & (np.array(LENGTHS) > 1)[:, None]]
    ).all()
    assert drawn.sum(1).tolist() == [2, 1, 1, 1]


def test_permuting_inputs_permutes_the_mask():
    keys, attention, valid = some()
    order = np.random.default_rng(3).permutation(20)
    chosen = draw(keys, valid, jnp.array([3, 2, 1, 2]))

    def made(attention, chosen, valid):
        scores = attention_scores(attention, chosen, mask_self=True)
        # Distinct: of equal scores the lower index would be hidden.
        scores = scores + attention.mean((1, 2))
        return np.asarray(mask_valid(keys, scores, valid, ratio=0.4).loss_weight)

    moved = made(attention[:, :, order][..., order], chosen[:, order], valid[:, order])
    np.testing.assert_array_equal(moved, made(attention, chosen, valid)[:, order])


def test_an_example_does_not_know_its_batch_nor_how_far_it_is_padded():
    keys, attention, valid = some()

    def made(keys, attention, valid):
        scores = guided_by_attention(
            keys, attention, valid, ratio=0.3, per_query=3, heads="random_mix"
        )
        return np.asarray(
            mask_valid(keys, scores, valid, ratio=0.3, random=0.5).loss_weight
        )

    whole = made(keys, attention, valid)
    part = made(keys[1:2], attention[1:2], valid[1:2])
    np.testing.assert_array_equal(whole[1:2], part)
    short = made(keys[1:2], attention[1:2, :, :13, :13], valid[1:2, :13])
    np.testing.assert_array_equal(whole[1:2, :13], short)


def test_all_random_ignores_the_scores_and_no_gradient_flows():
    keys, attention, valid = some()
    one = mask_valid(keys, attention.mean((1, 2)), valid, ratio=0.3, random=1.0)
    two = mask_valid(keys, -attention.mean((1, 2)), valid, ratio=0.3, random=1.0)
    np.testing.assert_array_equal(one.hidden, two.hidden)

    def scored(attention):
        options = {"ratio": 0.3, "per_query": 3.0}
        return guided_by_attention(keys, attention, valid, **options).sum()

    assert not np.asarray(jax.grad(scored)(attention)).any()


def test_latents_are_drawn_by_the_length_that_is_given():
    keys, attention, valid = some(queries=12)
    options = {"ratio": 0.5, "per_query": 1, "self_attention": False}
    one_hot = jnp.broadcast_to(jnp.eye(20)[:12], attention.shape)
    for length, count in ((20, 10), (10, 5), (None, 10)):
        scores = guided_by_attention(keys, one_hot, valid, length=length, **options)
        np.testing.assert_array_equal(np.asarray(scores).sum(1), count)


def test_the_random_share_falls_along_half_a_cosine():
    found = [float(random_share(step, 100, 0.8)) for step in (0, 50, 100, 500)]
    np.testing.assert_allclose(found, [0.8, 0.4, 0, 0], atol=1e-6)
    assert float(random_share(3, 0, 1.0)) == 0


BAD = [
    ({"heads": "max"}, "heads must be one of"),
    ({"ratio": 1.2}, "ratio"),
    ({"per_query": 0}, "per_query"),
    ({"self_attention": False, "mask_self": True}, "mask_self"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_what_cannot_be_is_said(options, words):
    keys, attention, valid = some()
    given = {"ratio": 0.3, "per_query": 3.0, **options}
    with pytest.raises(ValueError, match=words):
        guided_by_attention(keys, attention, valid, **given)


def test_shapes_must_belong_together():
    keys, attention, valid = some(queries=12)
    with pytest.raises(ValueError, match="queries must be the inputs"):
        guided_by_attention(keys, attention, valid, ratio=0.3, per_query=3)
    with pytest.raises(ValueError, match="ratio"):
        mask_valid(keys, valid * 1.0, valid, ratio=-0.1)
    with pytest.raises(ValueError, match="random_steps"):
        attention_mask(keys, Context(grid=(4, 5)), ratio=0.5, random_steps=-1)


def test_images_hide_what_a_layer_looks_at():
    grid, tokens = (4, 5), 20
    keys = keys_of(0, range(6))
    maps = np.full((6, 2, 1 + tokens, 1 + tokens), 1e-6, np.float32)
    liked = np.arange(6) + 3
    for row, patch in enumerate(liked):
        maps[row, :, :, 1 + patch] = 1
        maps[row, :, :, 0] = 50  # attention to the class token counts for nothing
    asked = []

    def attention(layer):
        asked.append(layer)
        return jnp.asarray(maps / maps.sum(-1, keepdims=True))

    context = Context(grid=grid, attention=attention)
    mask = attention_mask(keys, context, ratio=0.25, layer=-2)
    hidden = np.asarray(mask.hidden)
    assert asked == [-2]
    assert (hidden.sum(1) == tokens - num_keep(tokens, 0.25)).all()
    assert (hidden[np.arange(6), liked] == 1).all()
    early = Context(grid=grid, step=0, attention=attention)
    random = attention_mask(keys, early, ratio=0.25, random=1.0, random_steps=10)
    assert not (np.asarray(random.hidden)[np.arange(6), liked] == 1).all()
