"""SMA's masks, score for score and mask for mask, of the authors' code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import attention_scores, example_keys, mask_valid
from sgmae_jax.masking.attention import rounded_share
from tests.golden.fixtures import FOLDER, Fixture

PATH = FOLDER / "sma" / "sma_masks.npz"
pytestmark = pytest.mark.skipif(not PATH.is_file(), reason=f"no {PATH.name} there")


def masked(fixture, number, keys):
    """(scores, mask, the share drawn at random) of a case by our code."""
    part = {k: fixture[k] for k in fixture.arrays}
    name, case = f"case{number:02d}/", fixture.meta["cases"][number]
    valid = jnp.asarray(part[f"{name}valid"], bool)
    head = part.get(f"{name}drawn_head")
    scores = attention_scores(
        jax.nn.softmax(jnp.asarray(part[f"{name}logits"])),
        jnp.asarray(part[f"{name}chosen_queries"], bool),
        head=None if head is None else jnp.asarray(head),
        mask_self=case["mask_self"],
    )
    random = (case["select_initial_ratio"] or 0) * case["noise_scale"]
    mask = mask_valid(keys, scores, valid, ratio=case["ratio"], random=random)
    return scores, mask, random


@pytest.mark.parametrize("number", range(24))
def test_scores_and_masks(number):
    fixture = Fixture(PATH)
    name, case = f"case{number:02d}/", fixture.meta["cases"][number]
    valid = fixture[f"{name}valid"].astype(bool)
    ids = jnp.arange(len(valid))
    keys = example_keys(jax.random.key(0), jnp.zeros_like(ids), ids, "mask")
    scores, mask, random = masked(fixture, number, keys)
    theirs = fixture[f"{name}score"]
    np.testing.assert_allclose(np.where(valid, scores, 0), theirs * valid, rtol=1e-5)
    expected = fixture[f"{name}expected_mask"].astype(bool)
    ours = np.asarray(mask.loss_weight) > 0
    np.testing.assert_array_equal(ours.sum(1), expected.sum(1))
    np.testing.assert_array_equal(mask.hidden > 0, ours | ~valid)
    if random:  # what is drawn at random may be others, in the same number
        guided = fixture[f"{name}expected_mask_guided_part"].astype(bool)
        assert (ours[guided]).all()
    else:
        np.testing.assert_array_equal(ours, expected)
    count = jnp.asarray(valid.sum(1))
    if case["encoder"] == "self_attention":
        queries = rounded_share(count, case["ratio"], case["num_per_query"])
    else:
        length = valid.shape[1]
        queries = [round(length * case["ratio"] / case["num_per_query"])] * len(count)
    np.testing.assert_array_equal(queries, case["n_queries"])
