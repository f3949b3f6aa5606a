"""From relevance to a mask: ranks, ties, and the swap that makes hints."""

from math import comb

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import hint_count, informed_mask, num_keep
from tests.masking.generators import assert_valid, keys_of, properties, ratios, seeds

TOKENS, KEPT, HIDDEN = 196, 49, 147
DRAWS = 4096
modes = pytest.mark.parametrize("mode", ["random", "similarity"])

wild_relevance = hnp.arrays(
    np.float32,
    (3, 12),
    elements=st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan]),
        st.integers(-1000, 1000).map(lambda number: number / 8),
    ),
)


def draw(relevance, hints=0, mode="random", seed=0, ratio=0.75):
    """`hidden` of many draws for one image's relevance, bool[DRAWS, N]."""
    relevance = np.broadcast_to(relevance, (DRAWS, len(relevance)))
    mask = informed_mask(
        keys_of(seed, range(DRAWS)),
        jnp.asarray(relevance, jnp.float32),
        ratio=ratio,
        hints=hints,
        hint_mode=mode,
    )
    return np.asarray(mask.hidden).astype(bool)


def ranked(tokens=TOKENS):
    """Relevance without ties, in no order of place; and the ranks, 0 = least."""
    rank = np.random.default_rng(0).permutation(tokens)
    return rank / 7.0 - 3, rank


def assert_share(hits, probability):
    """Counts of draws stray no further from a probability than chance makes them."""
    spread = np.sqrt(probability * (1 - probability) / len(hits))
    assert np.abs(hits.mean(0) - probability).max() < 5 * spread


@modes
@properties
@given(
    relevance=wild_relevance,
    ratio=ratios,
    hints=st.integers(-2, 14),
    seed=seeds,
)
def test_exactly_the_asked_for_number_is_hidden(mode, relevance, ratio, hints, seed):
    mask = informed_mask(
        keys_of(seed, range(3)),
        jnp.asarray(relevance),
        ratio=ratio,
        hints=hints,
        hint_mode=mode,
    )
    assert_valid(jax.tree.map(np.asarray, mask), num_keep(12, ratio))


@properties
@given(relevance=wild_relevance, seed=seeds)
def test_without_hints_the_most_relevant_are_hidden(relevance, seed):
    mask = informed_mask(keys_of(seed, range(3)), jnp.asarray(relevance), ratio=0.5)
    values = np.where(np.isfinite(relevance), relevance, 0)
    hidden = np.asarray(mask.hidden).astype(bool)
    for row, chosen in zip(values, hidden, strict=True):
        assert row[chosen].min() >= row[~chosen].max()


def test_the_order_of_visible_tokens_says_nothing_of_their_relevance():
    relevance = jnp.tile(jnp.arange(12.0), (DRAWS, 1))
    mask = informed_mask(keys_of(0, range(DRAWS)), relevance, ratio=0.75)
    first = np.asarray(mask.ids_keep)[:, :1] == np.arange(3)
    assert_share(first, 1 / 3)


@modes
def test_an_example_does_not_know_its_batch(mode):
    relevance = jax.random.normal(jax.random.key(0), (8, 12))
    keys = keys_of(0, range(8))
    whole = informed_mask(keys, relevance, ratio=0.5, hints=3, hint_mode=mode)
    order = np.asarray([5, 0, 7])
    part = informed_mask(
        keys[order], relevance[order], ratio=0.5, hints=3, hint_mode=mode
    )
    for one, two in zip(whole[:5], part[:5], strict=True):
        np.testing.assert_array_equal(one[order], two)


@pytest.mark.parametrize("exponent", [-60, 60])
def test_only_ranks_matter(exponent):
    relevance = jax.random.normal(jax.random.key(0), (8, 12))
    keys = keys_of(0, range(8))
    one, two = (
        informed_mask(keys, r, ratio=0.5, hints=3)
        for r in (relevance, relevance * 2.0**exponent + 0.0)
    )
    np.testing.assert_array_equal(one.ids_restore, two.ids_restore)


# Ties.


@pytest.mark.fault(15)
def test_constant_relevance_gives_a_random_mask():
    """Every token as often, and every pair: Pearson's sum against its expectation."""
    tokens = 24
    hidden = draw(np.zeros(tokens))
    share = 18 / tokens
    assert_share(hidden, share)
    # Counts of draws without replacement within a mask: N - 1 degrees of freedom.
    spread = DRAWS * share * (1 - share) * tokens / (tokens - 1)
    chi_square = ((hidden.sum(0) - DRAWS * share) ** 2).sum() / spread
    freedom = tokens - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    both = hidden[:, :, None] & hidden[:, None, :]
    pairs = both[:, ~np.eye(tokens, dtype=bool)]
    assert_share(pairs, share * 17 / (tokens - 1))


def test_ties_at_the_boundary_alone_are_drawn():
    """4 sure to be hidden, 16 for the 14 places that are left, 4 sure to be seen."""
    level = np.repeat([2.0, 1.0, 0.0], [4, 16, 4])
    order = np.random.default_rng(0).permutation(24)
    hidden = draw(level[order])[:, np.argsort(order)]
    assert hidden[:, :4].all() and not hidden[:, 20:].any()
    assert_share(hidden[:, 4:20], 14 / 16)


@pytest.mark.fault(15)
def test_what_is_not_finite_counts_as_zero():
    relevance = np.asarray([1, np.nan, np.inf, -np.inf, 0, -1.0, -2, -3])
    hidden = draw(relevance, ratio=0.5)
    assert hidden[:, 0].all() and not hidden[:, 5:].any()
    assert_share(hidden[:, 1:5], 3 / 4)


# Hints.


def hypergeometric(good, bad, drawn):
    """Probabilities of 0 .. good good ones among so many drawn."""
    total = comb(good + bad, drawn)
    return np.asarray(
        [
            comb(good, k) * comb(bad, drawn - k) / total if k <= drawn else 0
            for k in range(good + 1)
        ]
    )


@modes
def test_the_newly_visible_are_as_many_as_a_draw_without_replacement_leaves(mode):
    """Figure 1 of the paper shows 7, 8 and 9: among the likely counts for nine hints.

    Nine of 147 are revealed and 49 of the 58 then visible stay so.
    """
    relevance, rank = ranked()
    shown = ~draw(relevance, hints=9, mode=mode)
    top = rank >= KEPT
    newly_visible = shown[:, top].sum(-1)
    newly_hidden = (~shown)[:, ~top].sum(-1)
    np.testing.assert_array_equal(newly_visible, newly_hidden)
    expected = DRAWS * hypergeometric(9, KEPT, KEPT)
    counts = np.bincount(newly_visible, minlength=10)
    mean = (np.arange(10) * expected).sum() / DRAWS
    assert mean == pytest.approx(9 * 49 / 58)
    assert abs(newly_visible.mean() - mean) < 5 * newly_visible.std() / DRAWS**0.5
    likely = expected > 10
    chi_square = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = likely.sum() - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
    assert counts[[7, 8, 9]].min() > 0.1 * DRAWS


def test_random_hints_are_any_of_the_hidden_and_replace_any_of_the_visible():
    relevance, rank = ranked(24)
    shown = ~draw(relevance, hints=5)
    top = rank >= 6
    stays = 6 / 11  # six of the eleven that are visible for a moment
    assert_share(shown[:, top], 5 / 18 * stays)
    assert_share(shown[:, ~top], stays)


def test_hints_by_similarity_are_the_most_relevant():
    relevance, rank = ranked(24)
    shown = ~draw(relevance, hints=5, mode="similarity")
    assert not shown[:, (rank >= 6) & (rank < 19)].any()
    assert_share(shown[:, rank >= 19], 6 / 11)
    assert_share(shown[:, rank < 6], 6 / 11)


@modes
def test_no_hints_hide_exactly_the_top(mode):
    relevance, rank = ranked()
    np.testing.assert_array_equal(
        draw(relevance, mode=mode)[:10], np.tile(rank >= KEPT, (10, 1))
    )


@modes
@pytest.mark.parametrize("hints", [18, 1000])
def test_as_many_hints_as_hidden_tokens_make_the_mask_random(mode, hints):
    relevance, _ = ranked(24)
    assert_share(draw(relevance, hints=hints, mode=mode), 18 / 24)


def test_the_number_of_hints_is_traced():
    """One compilation for every count; each is the mask of that static count."""
    relevance = jax.random.normal(jax.random.key(0), (4, TOKENS))
    keys, traces = keys_of(0, range(4)), []

    @jax.jit
    def masked(hints):
        traces.append(hints)
        return informed_mask(keys, relevance, ratio=0.75, hints=hints)

    for hints in (0, 1, 9, 147, 200):
        static = informed_mask(keys, relevance, ratio=0.75, hints=hints)
        for one, two in zip(masked(hints)[:5], static[:5], strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(traces) == 1 and masked._cache_size() == 1


def test_no_gradient_reaches_the_relevance():
    def total(relevance):
        mask = informed_mask(keys_of(0, range(2)), relevance, ratio=0.5, hints=2)
        return (mask.hidden * mask.gate * mask.loss_weight).sum()

    relevance = jax.random.normal(jax.random.key(0), (2, 12))
    assert not jax.grad(total)(relevance).any()


# Their schedule.


@pytest.mark.parametrize(
    "first, last, progress, expected",
    [
        (0.0625, 0.0625, 0.3, 9),  # of 147, as in the paper's figure 1
        (0.4, 0.0, 0.0, 59),
        (0.4, 0.0, 0.5, 29),
        (0.4, 0.0, 1.0, 0),
        (0.4, 0.0, 7.0, 0),
        (0.4, 0.0, -1.0, 59),
        (0.0, 1.0, 1.0, 147),
    ],
)
def test_hint_counts(first, last, progress, expected):
    assert hint_count(HIDDEN, first, last, progress) == expected
    traced = jax.jit(hint_count, static_argnums=(0, 1, 2))(
        HIDDEN, first, last, progress
    )
    assert traced == expected and traced.dtype == jnp.int32


@pytest.mark.parametrize(
    "change, error, word",
    [
        ({"hint_mode": "best"}, ValueError, "hint_mode must be one of"),
        ({"ratio": 1.5}, ValueError, "ratio"),
        ({"ratio": -0.5}, ValueError, "ratio"),
        ({"relevance": jnp.zeros(12)}, ValueError, r"B = 3"),
        ({"relevance": jnp.zeros((2, 12))}, ValueError, r"\(2, 12\)"),
        ({"keys": np.zeros((3, 2), np.uint32)}, TypeError, "jax.random.key"),
    ],
)
def test_bad_arguments_are_named(change, error, word):
    given = {"keys": keys_of(0, range(3)), "relevance": jnp.zeros((3, 12))}
    given |= {"ratio": 0.5} | change
    with pytest.raises(error, match=word):
        informed_mask(given.pop("keys"), given.pop("relevance"), **given)
