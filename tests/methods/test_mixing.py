"""Mixup, CutMix and random erasing: what they keep, how much they change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sgmae_jax.masking import example_keys
from sgmae_jax.methods.erasing import ASPECT, erase
from sgmae_jax.methods.mixing import mix
from sgmae_jax.models.head import soft_targets

KEYS = jax.random.split(jax.random.key(0), 400)
LABELS = jnp.arange(6)
SIZE = (12, 20)


def marked(count=6):
    """Images whose pixels all say which one they are of."""
    own = jnp.arange(1.0, count + 1)[:, None, None, None]
    return jnp.broadcast_to(own, (count, *SIZE, 3))


def mixed(smoothing=0.0, keys=KEYS, **alphas):
    """(images, targets) for every key."""
    targets = soft_targets(LABELS, 8, smoothing=smoothing)
    act = jax.jit(jax.vmap(lambda key: mix(key, marked(), targets, **alphas)))
    return jax.tree.map(np.asarray, act(keys))


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=str)
def test_targets_are_as_the_pixels(alphas):
    """The share of an image in the pixels is that of its class; rows sum to 1."""
    images, targets = mixed(mixup=alphas[0], cutmix=alphas[1])
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    assert (targets >= 0).all()
    # Each pixel is a mixture of k + 1 and 6 - k: its mean tells how much of each.
    own = np.arange(1.0, 7)
    mean = images.mean((2, 3, 4))
    share = (mean - own[::-1]) / (own - own[::-1])
    found = np.take_along_axis(targets, np.arange(6)[None, :, None], 2)[..., 0]
    np.testing.assert_allclose(found, share, atol=1e-5)
    # All of a batch share one share.
    np.testing.assert_allclose(found, found[:, :1].repeat(6, 1), atol=1e-6)


def test_smoothing_is_mixed_with_the_targets():
    """(1 - s) * lambda + s / K of the own class, likewise of the other."""
    plain = mixed(mixup=0.8, cutmix=1.0)[1]
    smooth = mixed(smoothing=0.1, mixup=0.8, cutmix=1.0)[1]
    np.testing.assert_allclose(smooth, 0.9 * plain + 0.1 / 8, atol=1e-6)


def test_shares_are_of_their_distributions():
    share = mixed(mixup=0.8, cutmix=0.0)[1][:, 0, 0]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert abs(share.mean() - 0.5) < 0.05
    assert abs(share.var() - 1 / (4 * 2.6)) < 0.015
    both = mixed(mixup=0.8, cutmix=1.0)[0][:, 0, ..., 0]
    # A blended image has one value, a cut one has two (or its own, where nothing fits).
    blended = np.array([len(np.unique(one)) == 1 for one in both])
    whole = np.array([np.isin(one, (1.0, 6.0)).all() for one in both])
    assert abs((blended & ~whole).mean() - 0.5) < 0.1


def test_a_cut_is_a_box_of_the_partner():
    images = mixed(mixup=0.0, cutmix=1.0)[0][:, 0, ..., 0]
    assert np.isin(images, (1.0, 6.0)).all()
    sizes = []
    for image in images:
        rows, columns = np.nonzero(image == 6.0)
        if len(rows):
            box = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert box[0] * box[1] == len(rows)
            sizes.append(box)
    height, width = np.array(sizes).T
    # Cut off at the border, or of even sides; anything up to nearly the whole.
    assert height.min() == 1 and height.max() >= 10 and width.max() >= 16


def test_mixing_is_the_same_on_many_devices():
    images = jax.random.normal(jax.random.key(1), (8, *SIZE, 3))
    targets = soft_targets(jnp.arange(8), 8)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    act = jax.jit(lambda *args: mix(KEYS[3], *args, mixup=0.8, cutmix=1.0))
    alone = act(images, targets)
    together = act(*jax.device_put((images, targets), spread))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def erased(chance, size=SIZE, count=400, first=0):
    ids = jnp.arange(first, first + count)
    keys = example_keys(jax.random.key(0), 0 * ids, ids, "erase")
    images = jnp.full((count, *size, 3), 9.0)
    act = jax.jit(lambda keys, images: erase(keys, images, chance))
    return np.asarray(act(keys, images))


def test_erased_areas_are_boxes_within_the_limits():
    found = erased(1.0, size=(60, 80))
    shares, ratios = [], []
    for image in found:
        rows, columns = np.nonzero((image != 9.0).all(-1))
        tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert tall * wide == len(rows) and tall < 60 and wide < 80
        # Every channel of a pixel, or none.
        assert ((image != 9.0).all(-1) == (image != 9.0).any(-1)).all()
        shares.append(len(rows) / 4800)
        ratios.append(tall / wide)
    assert 0.018 < min(shares) and max(shares) < 0.34
    assert abs(np.mean(shares) - (0.02 + 1 / 3) / 2) < 0.02
    assert ASPECT[0] * 0.9 < min(ratios) and max(ratios) < ASPECT[1] * 1.1
    noise = found[found != 9.0]
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01


def test_some_images_are_erased_and_each_by_itself():
    found = erased(0.25)
    share = (found != 9.0).any((1, 2, 3)).mean()
    assert abs(share - 0.25) < 0.07
    np.testing.assert_array_equal(erased(0.25, count=10, first=7), found[7:17])
    assert (erased(0.0) == 9.0).all()


def test_where_no_box_fits_nothing_is_erased():
    assert (erased(1.0, size=(1, 50), count=20) == 9.0).all()
