"""jit, vmap, shard_map and pmap; 1, 2 and 8 devices: the same bits everywhere."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sgmae_jax.masking import Context, num_keep, select
from tests.masking.generators import GENERATORS, keys_of

GRID, RATIO, BATCH = (14, 14), 0.75, 16
ROWS = PartitionSpec("data")


def by_images(keys, context, *, ratio):
    """A generator that looks at the images; only comparisons, so bits are exact."""
    batch = context.images.shape[0]
    bright = context.images.max(-1).reshape(batch, 14, 2, 14, 2).max((2, 4))
    return select(bright.reshape(batch, -1), num_keep(196, ratio))


PLAIN = {
    name: GENERATORS[name] for name in ("random", "block", "grid offset", "guided")
}
ALL = {**PLAIN, "images": by_images}
every_generator = pytest.mark.parametrize("name", ALL)


def masks(name, keys, images):
    return ALL[name](keys, Context(grid=GRID, images=images), ratio=RATIO)


@cache
def expected(name):
    """What one device says, without jit."""
    return masks(name, *inputs())


@cache
def inputs():
    images = jax.random.normal(jax.random.key(5), (BATCH, 28, 28, 3))
    return keys_of(0, range(BATCH)), images


def assert_same(mask, other):
    assert jax.tree.structure(mask) == jax.tree.structure(other)
    for one, two in zip(jax.tree.leaves(mask), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


@every_generator
def test_jit_changes_nothing(name):
    assert_same(jax.jit(partial(masks, name))(*inputs()), expected(name))


@every_generator
def test_vmap_over_a_further_axis(name):
    keys, images = inputs()
    split = jax.jit(jax.vmap(partial(masks, name)))(
        keys.reshape(4, 4), images.reshape(4, 4, *images.shape[1:])
    )
    joined = jax.tree.map(lambda leaf: leaf.reshape(BATCH, -1), split)
    assert_same(joined, expected(name))


def on_mesh(devices, kind):
    """A mesh of so many devices, and the inputs divided over it."""
    chosen = jax.devices()[:devices]
    mesh = jax.make_mesh((devices,), ("data",), (kind,), devices=chosen)
    return mesh, jax.device_put(inputs(), NamedSharding(mesh, ROWS))


def counts(name):
    """Numbers of devices; the guided mask is slow to compile."""
    return (8,) if name == "guided" else (1, 2, 8)


# An explicit mesh is what jax.make_mesh gives by default. There a function that looks
# at images has to say itself how its reshapes are divided.
on_meshes = pytest.mark.parametrize(
    "name, kind, devices",
    [(name, AxisType.Auto, devices) for name in ALL for devices in counts(name)]
    + [(name, AxisType.Explicit, 8) for name in PLAIN],
)


@on_meshes
@pytest.mark.fault(19)
def test_jit_over_sharded_arrays(name, kind, devices):
    mesh, placed = on_mesh(devices, kind)
    sharding = NamedSharding(mesh, ROWS)
    mask = jax.jit(partial(masks, name), out_shardings=sharding)(*placed)
    assert len(mask.hidden.sharding.device_set) == devices
    assert_same(mask, expected(name))


@pytest.mark.parametrize("name", PLAIN)
def test_on_an_explicit_mesh_a_mask_lies_where_its_keys_lie(name):
    mesh, placed = on_mesh(8, AxisType.Explicit)
    for leaf in jax.tree.leaves(jax.jit(partial(masks, name))(*placed)):
        assert leaf.sharding == NamedSharding(mesh, PartitionSpec("data", None))


@on_meshes
def test_shard_map(name, kind, devices):
    mesh, placed = on_mesh(devices, kind)
    fn = jax.shard_map(
        partial(masks, name), mesh=mesh, in_specs=(ROWS, ROWS), out_specs=ROWS
    )
    assert_same(jax.jit(fn)(*placed), expected(name))


@pytest.mark.parametrize(
    "name, devices", [(name, devices) for name in ALL for devices in counts(name)]
)
def test_pmap(name, devices):
    keys, images = inputs()
    share = BATCH // devices
    mask = jax.pmap(partial(masks, name), devices=jax.devices()[:devices])(
        keys.reshape(devices, share),
        images.reshape(devices, share, *images.shape[1:]),
    )
    joined = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(BATCH, -1), mask)
    assert_same(joined, expected(name))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", PLAIN)
def test_sharding_needs_no_communication(name, kind):
    mesh, placed = on_mesh(8, kind)
    jitted = jax.jit(partial(masks, name), out_shardings=NamedSharding(mesh, ROWS))
    text = jitted.lower(*placed).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert word not in text


@every_generator
def test_no_gradient_reaches_the_images(name):
    keys, images = inputs()

    def total(images):
        mask = masks(name, keys, images)
        kept = jnp.take_along_axis(jnp.ones((BATCH, 196)), mask.ids_keep, 1)
        return (mask.hidden * mask.loss_weight * mask.gate).sum() + kept.sum()

    assert not jax.jit(jax.grad(total))(images).any()
