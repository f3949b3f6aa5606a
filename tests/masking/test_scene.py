"""Masks of scenes: complementary, exact in number, and a scene's own affair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import example_keys, scene_mask

AGENTS, LANES = 24, 40


def scenes(count=6, seed=0):
    rng = np.random.default_rng(seed)
    agents = np.arange(AGENTS) < rng.integers(1, AGENTS + 1, (count, 1))
    futures = agents & (rng.random((count, AGENTS)) < 0.7)
    lanes = np.arange(LANES) < rng.integers(1, LANES + 1, (count, 1))
    return agents, futures, lanes


def keys_of(count, seed=0):
    ids = jnp.arange(count)
    return example_keys(jax.random.key(seed), jnp.zeros(count, int), ids, "mask")


def made(agent_ratio=0.5, lane_ratio=0.5, **given):
    there = scenes(**given)
    keys = keys_of(len(there[0]))
    mask = jax.jit(scene_mask, static_argnames=("agent_ratio", "lane_ratio"))(
        keys, *there, agent_ratio=agent_ratio, lane_ratio=lane_ratio
    )
    return there, [np.asarray(part) for part in mask]


@pytest.mark.parametrize("agent_ratio", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("lane_ratio", [0.0, 0.5, 1.0])
def test_agents_show_one_of_two_and_the_numbers_are_exact(agent_ratio, lane_ratio):
    (agents, futures, lanes), (history, future, kept) = made(agent_ratio, lane_ratio)
    assert not (history & future).any()
    np.testing.assert_array_equal(history | future, agents)
    assert not (future & ~futures).any() and not (kept & ~lanes).any()
    shown = np.floor(futures.sum(1) * np.float32(1 - agent_ratio))
    np.testing.assert_array_equal(future.sum(1), shown)
    wanted = np.ceil(lanes.sum(1) * np.float32(1 - lane_ratio))
    np.testing.assert_array_equal(kept.sum(1), wanted)


def test_it_depends_on_the_scene_alone():
    (agents, futures, lanes), mask = made()
    keys = keys_of(len(agents))
    one = slice(3, 4)
    alone = scene_mask(
        keys[one],
        *(jnp.pad(part[one], ((0, 0), (0, 17))) for part in (agents, futures, lanes)),
        agent_ratio=0.5,
        lane_ratio=0.5,
    )
    for ours, whole in zip(alone, mask, strict=True):
        np.testing.assert_array_equal(ours[0, : whole.shape[1]], whole[3])
        assert not np.asarray(ours)[0, whole.shape[1] :].any()


def test_every_agent_is_hidden_now_and_then():
    agents = futures = np.ones((2000, 6), bool)
    lanes = np.ones((2000, 3), bool)
    _, future, kept = scene_mask(
        keys_of(2000), agents, futures, lanes, agent_ratio=0.5, lane_ratio=0.5
    )
    assert np.abs(np.asarray(future).mean(0) - 0.5).max() < 0.04
    assert np.abs(np.asarray(kept).mean(0) - 2 / 3).max() < 0.04


@pytest.mark.parametrize("name", ["agent_ratio", "lane_ratio"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_ratios_out_of_range(name, value):
    ratios = {"agent_ratio": 0.5, "lane_ratio": 0.5, name: value}
    with pytest.raises(ValueError, match=name):
        scene_mask(keys_of(6), *scenes(), **ratios)
