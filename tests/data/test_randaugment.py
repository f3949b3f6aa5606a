"""RandAugment: every op by its definition, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from sgmae_jax.config import default_config
from sgmae_jax.data import AugmentConfig, RandAugment, train_image
from sgmae_jax.data.randaugment import COLOURS, MOVES, NAMES, apply_op, rand_augment
from sgmae_jax.domains.images import rand_augment_of

FILL = (10, 90, 200, 40)
STRONG = RandAugment(9.0, 0.5, FILL)


def photo(channels=3, height=24, width=40):
    """Smooth, so that no filter reaches beyond 0 and 255."""
    down, across = np.mgrid[:height, :width]
    planes = [60 + 2 * down + across + 20 * channel for channel in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def op(name, image, s):
    return apply_op(name, image, s, FILL[: image.shape[2]])


def test_the_policy_has_fifteen_ops():
    assert len(NAMES) == len(set(NAMES)) == 15


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_size_type_and_alpha(name, channels):
    image = photo(channels)
    for s in (-1.0, -0.9, 0.4, 1.0):
        found = op(name, image, s)
        assert found.shape == image.shape and found.dtype == np.uint8
        if channels == 4:
            colours = op(name, image[..., :3], s)
            np.testing.assert_array_equal(found[..., :3], colours)
            still = np.array_equal(found[..., 3], image[..., 3])
            assert still == (name in COLOURS)


@pytest.mark.parametrize(
    "name",
    sorted({*NAMES} - {"autocontrast", "equalize", "invert", "posterize"}),
)
def test_without_strength_nothing_changes(name):
    image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    np.testing.assert_array_equal(op(name, image, 0.0), image)


@pytest.mark.parametrize(
    ("name", "s", "expected"),
    [
        ("invert", 0.9, lambda v: 255 - v),
        ("posterize", 0.9, lambda v: v & 0b10000000),
        ("posterize", -0.4, lambda v: v & 0b11100000),
        ("posterize", 1.0, lambda v: v & 0b10000000),
        ("solarize", 0.9, lambda v: np.where(v < 26, v, 255 - v)),
        ("solarize_add", 0.9, lambda v: np.where(v < 128, np.minimum(v + 99, 255), v)),
        ("brightness", 0.9, lambda v: np.minimum(1.81 * v, 255).astype(int)),
        ("brightness", -0.9, lambda v: (0.19 * v).astype(int)),
        ("brightness", -1.0, lambda v: (0.1 * v).astype(int)),
    ],
)
def test_pixel_by_pixel_ops(name, s, expected):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    found = op(name, image, s).astype(int)
    assert np.abs(found - expected(image.astype(int))).max() <= 1


def test_translations_are_shares_of_the_side_and_filled():
    image = photo()
    found = op("translate_x", image, 0.5)  # 0.45 * 0.5 * 40 = 9 pixels
    np.testing.assert_array_equal(found[:, :31], image[:, 9:])
    assert (found[:, 31:] == FILL[:3]).all()
    found = op("translate_y", image, -0.5)  # 5.4 pixels down
    assert (found[:5] == FILL[:3]).all()
    assert np.abs(found[6:].astype(int) - (image[:-6] + 1.2)).max() < 2


def test_a_rotation_turns_about_the_centre_by_thirty_degrees_at_most():
    image = np.zeros((101, 101, 1), np.uint8)
    image[50, 50:] = 255
    for s in (1.0, -1.0, 0.5):
        found = apply_op("rotate", image, s, (0,))
        down, right = np.argwhere(found[..., 0] > 100).mean(0) - 50
        angle = np.degrees(np.arctan2(-down, right))
        assert abs(angle - 30 * s) < 1


def test_shears_leave_one_axis_alone():
    image = np.zeros((41, 41, 1), np.uint8)
    image[:, 20] = 255
    found = apply_op("shear_x", image, 1.0, (0,))[..., 0]
    middles = found.argmax(1).astype(float)
    slope = np.polyfit(np.arange(41), middles, 1)[0]
    assert abs(abs(slope) - 0.3) < 0.02
    turned = apply_op("shear_y", image.swapaxes(0, 1), 1.0, (0,))[..., 0]
    np.testing.assert_array_equal(turned, found.T)


def test_two_ops_each_every_other_time(monkeypatch):
    """How often, which, and how strongly, through what is asked of the ops."""
    seen = []
    for table in (COLOURS, MOVES):
        for name in table:
            monkeypatch.setitem(
                table,
                name,
                lambda image, s, *fill, name=name: seen.append((name, s)) or image,
            )
    image, counts = photo(1), []
    for seed in range(2000):
        before = len(seen)
        rand_augment(np.random.default_rng(seed), image, STRONG)
        counts.append(len(seen) - before)
    shares = np.bincount(counts) / 2000
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.03)
    names, strengths = zip(*seen, strict=True)
    assert set(names) == {*NAMES}
    most = max(names.count(name) for name in NAMES)
    assert most < 1.5 * len(names) / 15
    size = np.abs(strengths)
    assert size.max() == 1.0 and abs(np.median(size) - 0.9) < 0.01
    assert abs((size == 1.0).mean() - 0.0228) < 0.015
    assert abs(np.mean(np.sign(strengths))) < 0.08


def test_it_follows_the_examples_chance_and_comes_after_the_crop():
    image = photo(height=50, width=70)
    plain = AugmentConfig(scale=(0.5, 1.0))
    with_ops = AugmentConfig(scale=(0.5, 1.0), rand_augment=STRONG)
    changed = 0
    for seed in range(30):
        made, view = train_image(np.random.default_rng(seed), image, (24, 32), plain)
        rng = np.random.default_rng(seed)
        found = train_image(rng, image, (24, 32), with_ops)
        np.testing.assert_array_equal(found.view, view)
        changed += not np.array_equal(found.image, made)
        again = train_image(np.random.default_rng(seed), image, (24, 32), with_ops)
        np.testing.assert_array_equal(found.image, again.image)
    assert 12 <= changed < 30


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1, 3 or 4 channels, not 2"):
        apply_op("rotate", np.zeros((4, 4, 2), np.uint8), 0.5, FILL)


def test_a_config_fills_with_its_mean_pixel():
    config = default_config()
    assert rand_augment_of(config) is None
    config.data.rand_augment = (9, 0.5)
    config.data.mean = (0.5, -1.0, 2.0)
    assert rand_augment_of(config) == RandAugment(9, 0.5, (128, 0, 255))
