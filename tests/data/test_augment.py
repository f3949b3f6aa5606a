"""Crops and sizes against the definition of torchvision's transforms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sgmae_jax.data import AugmentConfig, eval_image, train_image, whole_image
from sgmae_jax.data.augment import crop_box

CONFIG = AugmentConfig()
SIDE = st.integers(1, 600)


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng([height, width])
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@settings(deadline=None, max_examples=200)
@given(height=SIDE, width=SIDE, seed=st.integers(0, 2**32))
def test_crops_lie_within_any_image(height, width, seed):
    rng = np.random.default_rng(seed)
    top, left, crop_height, crop_width = crop_box(rng, height, width, CONFIG)
    assert 0 <= top and 0 < crop_height and top + crop_height <= height
    assert 0 <= left and 0 < crop_width and left + crop_width <= width


def test_crops_spread_as_the_definition_says():
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(rng, 900, 1000, CONFIG) for _ in range(20_000)])
    top, left, height, width = boxes.T
    area = height * width / 900_000
    ratio = width / height
    assert 0.2 - 2e-3 < area.min() and area.max() <= 1
    assert 0.75 - 5e-3 < ratio.min() and ratio.max() < 4 / 3 + 5e-3
    # Small crops nearly always fit: given their area, the logarithm of the ratio is
    # uniform, and so is the place.
    small = area < 0.5
    assert abs(np.log(ratio[small]).mean()) < 0.01
    uniform = 2 * math.log(4 / 3) / math.sqrt(12)
    assert abs(np.log(ratio[small]).std() / uniform - 1) < 0.02
    for place, room in ((top, 900 - height), (left, 1000 - width)):
        assert abs((place[small] / room[small]).mean() - 0.5) < 0.01
    # One try of an area uniform in [0.2, 1] would put 3/8 of them below a half; the
    # large ones that do not fit are drawn again.
    assert 0.375 < small.mean() < 0.5


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1, 100), (0, 49, 1, 1)),  # round(1 * 4 / 3) = 1 wide, centred
        ((100, 1), (49, 0, 1, 1)),
        ((10, 1000), (0, 493, 10, 13)),
        ((1000, 10), (493, 0, 13, 10)),
        ((1, 1), (0, 0, 1, 1)),
    ],
)
def test_extreme_images_get_the_centred_crop(size, box):
    config = AugmentConfig(scale=(0.9, 1.0))
    assert crop_box(np.random.default_rng(0), *size, config) == box


def test_train_image_is_crop_resize_flip():
    image = photo(50, 70)
    flips = 0
    for seed in range(40):
        made, view = train_image(np.random.default_rng(seed), image, (24, 32), CONFIG)
        top, left, height, width = crop_box(np.random.default_rng(seed), 50, 70, CONFIG)
        crop = Image.fromarray(image).crop((left, top, left + width, top + height))
        plain = np.asarray(crop.resize((32, 24), Image.Resampling.BICUBIC))
        mirrored = np.array_equal(made, plain[:, ::-1])
        assert mirrored or np.array_equal(made, plain)
        across = (left + width, -width) if mirrored else (left, width)
        expected = np.array(((top, height), across)) / np.array([[50], [70]])
        np.testing.assert_array_equal(view, expected.astype(np.float32))
        flips += mirrored
    assert 10 <= flips <= 30
    config = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=False)
    square = photo(32, 32)
    same = train_image(np.random.default_rng(0), square, (32, 32), config)
    np.testing.assert_array_equal(same.image, square)
    np.testing.assert_array_equal(same.view, [[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("height", "width", "size", "crop"),
    [
        (375, 500, (224, 224), 0.875),
        (500, 375, (224, 224), 0.875),
        (32, 32, (32, 32), 0.875),
        (100, 80, (32, 48), 0.9),
        (33, 57, (64, 64), 1.0),
        (1, 1, (8, 8), 0.875),
    ],
)
def test_eval_image_is_resize_then_centre_crop(height, width, size, crop):
    # Smooth, as photographs are: where noise saturates, Pillow's order of rows and
    # columns, which it picks by size, would show.
    coarse = Image.fromarray(photo(8, 8) // 2 + 64)
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    cover = [int(side / crop) for side in size]
    if cover[0] / height >= cover[1] / width:
        cover[1] = int(cover[0] * width / height)
    else:
        cover[0] = int(cover[1] * height / width)
    whole = Image.fromarray(image).resize(
        (cover[1], cover[0]), Image.Resampling.BICUBIC
    )
    top, left = round((cover[0] - size[0]) / 2), round((cover[1] - size[1]) / 2)
    expected = np.asarray(whole)[top : top + size[0], left : left + size[1]]
    shown = eval_image(image, size, crop)
    assert np.abs(shown.image.astype(int) - expected).max() <= 1
    rows = zip((top, left), size, cover, strict=True)
    shares = [(start / length, side / length) for start, side, length in rows]
    np.testing.assert_allclose(shown.view, shares, rtol=0, atol=1e-6)


def test_eval_image_leaves_the_right_size_alone_and_survives_extremes():
    image = photo(32, 32)
    np.testing.assert_array_equal(eval_image(image, (32, 32), 1.0).image, image)
    for size in ((1, 20_000), (20_000, 1), (1, 1)):
        shown = eval_image(photo(*size), (32, 48))
        assert shown.image.shape == (32, 48, 3)
        # Between the edges of the image, to rounding.
        edges = np.stack((shown.view[:, 0], shown.view.sum(1)))
        assert (edges >= 0).all() and (edges <= 1 + 1e-6).all()


def test_the_whole_image_is_stretched():
    image = photo(50, 70)
    shown = whole_image(image, (24, 32))
    expected = Image.fromarray(image).resize((32, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(shown.image, expected)
    np.testing.assert_array_equal(shown.view, [[0, 1], [0, 1]])
    assert shown.view.dtype == np.float32
    np.testing.assert_array_equal(whole_image(image, (50, 70)).image, image)


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(20, 300), width=st.integers(20, 300), seed=st.integers(0, 999)
)
def test_a_view_tells_where_each_pixel_comes_from(height, width, seed):
    """Pixels that hold their own place, 0 to 255: a crop of them is read off."""
    down, across = np.mgrid[:height, :width]
    places = ((down + 0.5) / height, (across + 0.5) / width)
    ramp = np.stack(places, -1) * 255
    image = np.rint(ramp).astype(np.uint8)
    rng = np.random.default_rng(seed)
    for shown in (
        train_image(rng, image, (16, 24), CONFIG),
        eval_image(image, (16, 24)),
        whole_image(image, (16, 24)),
    ):
        middle = (np.mgrid[:16, :24] + 0.5) / np.array([16, 24])[:, None, None]
        offset, scale = shown.view.T[..., None, None]
        expected = np.moveaxis(offset + scale * middle, 0, -1) * 255
        # At the edges the filter sees nothing of what lies beyond.
        error = np.abs(shown.image - expected)[3:-3, 3:-3]
        assert error.max() < 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_channels_do_not_mix(channels):
    image = photo(40, 40, channels)
    made, _ = train_image(np.random.default_rng(3), image, (16, 16), CONFIG)
    assert made.shape == (16, 16, channels)
    for channel in range(channels):
        alone = image[..., channel : channel + 1]
        one, _ = train_image(np.random.default_rng(3), alone, (16, 16), CONFIG)
        np.testing.assert_array_equal(made[..., channel : channel + 1], one)


def test_a_clipped_crop_is_drawn_once_and_cut_to_the_image():
    """In a wide image every draw is as high as the image, or the whole of its own."""
    config = AugmentConfig(scale=(0.08, 1.0), clip=True)
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(rng, 100, 100, config) for _ in range(20_000)])
    top, left, height, width = boxes.T
    assert (top + height <= 100).all() and (left + width <= 100).all()
    # Of the one area drawn: those below 3/4 fit whatever their ratio.
    area = height * width / 10_000
    assert abs((area < 0.54).mean() - 0.5) < 0.01
    for seed in range(50):
        fits = AugmentConfig(scale=(0.08, 0.5))
        clipped = AugmentConfig(scale=(0.08, 0.5), clip=True)
        wanted = crop_box(np.random.default_rng(seed), 90, 100, fits)
        assert crop_box(np.random.default_rng(seed), 90, 100, clipped) == wanted
    wide = crop_box(np.random.default_rng(0), 10, 1000, AugmentConfig(clip=True))
    assert wide[0] == 0 and wide[2] == 10


def test_nothing_more_is_drawn_unless_it_is_asked_for():
    rng, same = np.random.default_rng(7), np.random.default_rng(7)
    train_image(rng, photo(50, 70), (24, 32), CONFIG)
    same.random(40)  # the crop
    same.random()  # the flip
    assert rng.bit_generator.state == same.bit_generator.state
