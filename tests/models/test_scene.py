"""Networks over scenes: padding, order and hidden slots change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.data.motion import Roads, SceneRows
from sgmae_jax.masking import SceneMask, example_keys, scene_mask
from sgmae_jax.models.agents import BLOCKS, AgentEmbedder, NeighbourhoodAttention
from sgmae_jax.models.lanes import LaneEmbedder
from sgmae_jax.models.scene import (
    FocalHead,
    SceneDecoder,
    SceneEncoder,
    Size,
    WorldHead,
)
from sgmae_jax.models.scene_autoencoder import SceneAutoencoder

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZE = Size(64, 1, 2)
MODEL = SceneAutoencoder(SceneEncoder(SIZE), SceneDecoder(SIZE, (50, 60), 20), 50)
COUNT = 3


def batch_of(agents=16, lanes=64):
    rows = SceneRows((agents,), (lanes,))
    source = Roads()
    return rows.join([rows.plain(source[index]) for index in range(COUNT)])


def mask_of(batch):
    keys = example_keys(
        jax.random.key(0), jnp.zeros(COUNT, int), jnp.arange(COUNT), "mask"
    )
    there = MODEL.present(batch)
    return scene_mask(keys, *there, agent_ratio=0.5, lane_ratio=0.5)


@pytest.fixture(scope="module")
def params():
    first = {name: array[:1] for name, array in batch_of().items()}
    made = jax.jit(MODEL.init)(jax.random.key(1), first)
    # Biases and the like away from 0 and 1.
    leaves, tree = jax.tree.flatten(made)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


@jax.jit
def predict(params, batch, mask):
    return MODEL.predict(params, batch, mask, None)


def shown(prediction, batch):
    """What is predicted of what there is."""
    there = MODEL.present(batch)
    agents, lanes = np.asarray(there.agents), np.asarray(there.lanes)
    found = [prediction.history[agents], prediction.future[agents]]
    return [np.asarray(part) for part in (*found, prediction.lanes[lanes])]


def test_padding_changes_nothing(params):
    """Neither how much there is of it, nor what lies in it, batch norm included."""
    batch, wider = batch_of(), batch_of(agents=21, lanes=80)
    wanted = shown(predict(params, batch, mask_of(batch)), batch)
    for name, array in wider.items():
        if name.startswith(("agent", "lane")) and not name.endswith("present"):
            gone = ~np.asarray(wider[f"{name.partition('_')[0]}_present"]).any(-1)
            array[gone] = 3 if array.dtype.kind in "iub" else 77.0
    found = shown(predict(params, wider, mask_of(wider)), wider)
    for ours, whole in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, whole, atol=2e-5)


def test_missing_steps_change_nothing_but_by_their_mark(params):
    """What lies in lane points that are missing does not matter."""
    batch = batch_of()
    batch["lane_present"][:, :, 15:] &= False
    wanted = shown(predict(params, batch, mask_of(batch)), batch)
    batch["lane_points"][:, :, 15:] = 50.0
    found = shown(predict(params, batch, mask_of(batch)), batch)
    for ours, whole in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, whole, atol=1e-6)


def test_the_order_of_agents_and_lanes_is_carried_through(params):
    batch = batch_of()
    mask = mask_of(batch)
    whole = predict(params, batch, mask)
    rng = np.random.default_rng(0)
    agents = np.concatenate([[0], 1 + rng.permutation(15)])
    lanes = rng.permutation(64)
    orders = {"agent": agents, "lane": lanes}
    turned = {
        name: array[:, orders[name.partition("_")[0]]]
        for name, array in batch.items()
        if name.startswith(tuple(orders))
    }
    moved = SceneMask(
        mask.history[:, agents], mask.future[:, agents], mask.lanes[:, lanes]
    )
    found = predict(params, batch | turned, moved)
    np.testing.assert_allclose(found.history, whole.history[:, agents], atol=2e-5)
    np.testing.assert_allclose(found.future, whole.future[:, agents], atol=2e-5)
    np.testing.assert_allclose(found.lanes, whole.lanes[:, lanes], atol=2e-5)


def test_hidden_slots_are_as_good_as_absent(params):
    """The static form against tokens that are really gathered, scene by scene."""
    batch = batch_of()
    mask = mask_of(batch)
    whole = predict(params, batch, mask)
    keep = jnp.concatenate(mask, 1)
    encoder = {"params": params["encoder"]}

    def tokens(batch):
        pasts = MODEL._agents(params["encoder"], batch, None)
        futures = MODEL.future_embedder.apply(
            {"params": params["future"]}, MODEL.futures(batch).reshape(-1, 60, 3)
        ).reshape(pasts.shape)
        futures = MODEL.encoder.apply(
            encoder, futures, batch["agent_kind"], method=SceneEncoder.with_kind
        )
        lanes, _ = MODEL.roads(params["encoder"], batch, None)
        pose = MODEL.encoder.apply(
            encoder, MODEL.poses(batch, futures=True), method=SceneEncoder.place
        )
        return jnp.concatenate([pasts, futures, lanes], 1) + pose

    made = jax.jit(tokens)(batch)
    there = jnp.concatenate(MODEL.present(batch), 1)
    encode = jax.jit(lambda kept: MODEL.encoder.apply(encoder, kept, None))

    @jax.jit
    def decode(latent, keep, there, pose):
        given = {"params": params["decoder"]}
        return MODEL.decoder.apply(given, latent, keep, there, pose, 16)

    for row in range(2):
        kept = np.flatnonzero(keep[row])
        latent = encode(made[row : row + 1, kept])
        spread = jnp.zeros((1, made.shape[1], 64)).at[:, kept].set(latent)
        one = slice(row, row + 1)
        pose = MODEL.poses(batch, futures=True)[one]
        found = decode(spread, keep[one], there[one], pose)
        for ours, theirs in zip(found, whole[:3], strict=True):
            np.testing.assert_allclose(ours[0], theirs[row], atol=2e-5)


def test_what_is_hidden_does_not_leak(params):
    batch = batch_of()
    mask = mask_of(batch)
    wanted = predict(params, batch, mask)
    past = np.asarray(MODEL.present(batch).agents & ~mask.history)
    future = np.asarray(MODEL.present(batch).futures & ~mask.future)
    other = {name: array.copy() for name, array in batch.items()}
    other["agent_steps"][past] += 9.0
    other["agent_speed_change"][past] -= 4.0
    other["agent_future"][future] *= -3.0
    for ours, theirs in zip(predict(params, other, mask)[:3], wanted[:3], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_neighbourhood_attention_against_its_loop():
    heads, window, length, width = 2, 5, 9, 8
    module = NeighbourhoodAttention(heads, window, "float32")
    x = jax.random.normal(jax.random.key(0), (2, length, width))
    params = module.init(jax.random.key(1), x)
    found = np.asarray(module.apply(params, x))
    own = jax.tree.map(np.asarray, params["params"])
    qkv = np.asarray(x) @ own["qkv"]["kernel"] + own["qkv"]["bias"]
    q, k, v = qkv.reshape(2, length, 3, heads, 4).transpose(2, 0, 3, 1, 4)
    mixed = np.zeros((2, length, heads, 4))
    for b in range(2):
        for h in range(heads):
            for i in range(length):
                start = min(max(i - window // 2, 0), length - window)
                places = range(start, start + window)
                scores = [
                    q[b, h, i] @ k[b, h, j] / 2 + own["relative"][h, j - i + window - 1]
                    for j in places
                ]
                weights = np.exp(scores) / np.exp(scores).sum()
                mixed[b, i, h] = weights @ v[b, h, list(places)]
    wanted = mixed.reshape(2, length, width) @ own["proj"]["kernel"]
    np.testing.assert_allclose(found, wanted + own["proj"]["bias"], atol=1e-5)


def test_dropped_branches_leave_the_rest():
    """With every branch of all blocks dropped, only convolutions and norms are left."""
    module = AgentEmbedder(64)
    series = jax.random.normal(jax.random.key(0), (4, 50, 4))
    params = jax.jit(module.init)(jax.random.key(1), series)
    run = jax.jit(lambda scales: module.apply(params, series, scales))
    ones = jnp.ones((BLOCKS, 2, 4))
    plain = run(ones)
    half = ones.at[:, :, :2].set(0.0)
    found = run(half)
    np.testing.assert_allclose(found[2:], plain[2:], atol=1e-5)
    assert np.abs(np.asarray(found - plain)[:2]).max() > 1e-3


def test_the_lanes_norm_against_its_definition():
    module = LaneEmbedder(8)
    rng = np.random.default_rng(0)
    points = rng.normal(2, 3, (2, 5, 20, 3)).astype(np.float32)
    counted = np.array([[True] * 3 + [False] * 2, [True] * 5])
    params = module.init(jax.random.key(0), points, counted)
    _, moments = module.apply(params, points, counted)
    own = params["params"]["first_in"]
    inner = points[counted] @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
    inner = inner.reshape(-1, 8)
    np.testing.assert_allclose(moments["first"]["mean"], inner.mean(0), atol=1e-5)
    np.testing.assert_allclose(moments["first"]["var"], inner.var(0), rtol=1e-4)
    by_batch, _ = module.apply(params, points, counted)
    by_given, _ = module.apply(params, points, counted, moments)
    np.testing.assert_allclose(by_batch, by_given, atol=1e-5)


@pytest.mark.parametrize("modes", [1, 6])
def test_heads(modes):
    agents = jax.random.normal(jax.random.key(0), (3, 5, 64))
    there = np.array([[True] * 5, [True] * 4 + [False], [True] + [False] * 4])
    focal, worlds = FocalHead(modes, 7), WorldHead(modes, 7)
    params = focal.init(jax.random.key(1), agents)
    places, logits, others = focal.apply(params, agents)
    assert places.shape == (3, modes, 7, 2) and logits.shape == (3, modes)
    assert others.shape == (3, 4, 7, 2)
    params = worlds.init(jax.random.key(1), agents, there)
    places, logits = worlds.apply(params, agents, there)
    assert places.shape == (3, modes, 5, 7, 2) and logits.shape == (3, modes)
    other = agents.at[1, 4].set(9.0).at[2, 1:].set(9.0)
    np.testing.assert_allclose(worlds.apply(params, other, there)[1], logits, atol=1e-6)
    if modes > 1:  # worlds are told apart
        assert np.abs(np.asarray(places[:, 0] - places[:, 1])).max() > 1e-3
