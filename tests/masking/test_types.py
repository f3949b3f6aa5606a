"""num_keep, Context and Mask."""

from dataclasses import FrozenInstanceError, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgmae_jax.masking import Context, num_keep
from tests.masking.generators import properties


@pytest.mark.parametrize(
    "tokens, ratio, kept",
    [
        (196, 0.75, 49),
        (256, 0.75, 64),
        (196, 0.0, 196),
        (196, 1.0, 0),
        (10, 0.9, 0),  # 10 * (1 - 0.9) = 0.99..., the authors' rule
        (7, 0.5, 3),
    ],
)
def test_known_counts(tokens, ratio, kept):
    assert num_keep(tokens, ratio) == kept


@properties
@given(tokens=st.integers(1, 5000), ratio=st.floats(0, 1))
def test_counts_stay_in_range(tokens, ratio):
    assert 0 <= num_keep(tokens, ratio) <= tokens


@pytest.mark.parametrize(
    "tokens, ratio, word",
    [
        (0, 0.5, "num_tokens"),
        (4, -0.1, "ratio"),
        (4, 1.1, "ratio"),
        (4, float("nan"), "ratio"),
        (4, float("inf"), "ratio"),
    ],
)
def test_bad_counts_are_named(tokens, ratio, word):
    with pytest.raises(ValueError, match=word):
        num_keep(tokens, ratio)


@pytest.mark.parametrize("name", ["features", "attention"])
@pytest.mark.parametrize("given_none", [False, True])
def test_asking_for_what_is_not_there_says_so(name, given_none):
    context = Context(grid=(2, 3), **({name: None} if given_none else {}))
    with pytest.raises(ValueError, match=f"{name} of layer -1"):
        getattr(context, name)(-1)


def test_features_are_made_only_when_asked_for():
    asked = []

    def features(layer):
        asked.append(layer)
        return jnp.zeros((1, 6, 4))

    context = Context(grid=(2, 3), features=features)
    assert context.num_tokens == 6 and asked == []
    assert context.features(11).shape == (1, 6, 4) and asked == [11]


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_an_array_stands_for_every_layer(kind):
    array = kind(np.arange(24.0).reshape(1, 6, 4))
    context = Context(grid=(2, 3), features=array)
    assert context.features(-2) is context.features(11) is array
    with pytest.raises(ValueError, match="attention of layer 2"):
        context.attention(2)


def test_a_context_cannot_be_changed_but_copied():
    context = Context((2, 3), features=jnp.zeros((1, 6, 4)))
    with pytest.raises(FrozenInstanceError):
        context.step = 3
    later = replace(context, step=3)
    assert later.step == 3 and context.step == 0
    assert later.features(1) is context.features(1)


def test_a_mask_is_a_pytree_with_or_without_padding():
    from sgmae_jax.masking import select

    mask = select(jnp.zeros((2, 5)), 3)
    assert len(jax.tree.leaves(mask)) == 5
    padded = select(jnp.zeros((2, 5)), 3, count=jnp.asarray([1, 3]))
    assert len(jax.tree.leaves(padded)) == 6
