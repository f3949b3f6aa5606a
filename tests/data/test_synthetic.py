"""The embedded images: pure, balanced, separable."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sgmae_jax.data import DataError, Synthetic, SyntheticConfig


def test_an_image_follows_from_seed_split_and_index_alone():
    first, again = Synthetic(seed=3), Synthetic(seed=3)
    for index in (7, 0, 19_999):
        np.testing.assert_array_equal(again[index]["image"], first[index]["image"])
    others = [
        Synthetic(seed=4)[7],
        Synthetic(seed=3, split="test")[7],
        first[17],
    ]
    for other in others:
        assert (other["image"] != first[7]["image"]).mean() > 0.5
    shorter = Synthetic(seed=3, config=SyntheticConfig(train_length=10))
    np.testing.assert_array_equal(shorter[7]["image"], first[7]["image"])


def test_lengths_classes_and_balance():
    train, test = Synthetic(), Synthetic(split="test")
    assert (len(train), len(test)) == (20_000, 2_000)
    assert len(set(train.classes)) == 10
    labels = [test[index]["label"] for index in range(100)]
    assert np.bincount(labels).tolist() == [10] * 10
    with pytest.raises(IndexError):
        test[2_000]
    with pytest.raises(DataError, match="val"):
        Synthetic(split="val")


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (32, 96)])
def test_objects_cover_the_stated_share(size):
    source = Synthetic(image_size=size, seed=1)
    low, high = SyntheticConfig().area
    for index in range(200):
        mask = source[index]["object_mask"]
        assert mask.shape == size and mask.dtype == bool
        assert low - 0.03 < mask.mean() < high + 0.03


def test_another_size_shows_the_same_scene():
    small = Synthetic(image_size=(32, 32))
    large = Synthetic(image_size=(64, 64))
    agree = [
        (large[i]["object_mask"][::2, ::2] == small[i]["object_mask"]).mean()
        for i in range(50)
    ]
    assert min(agree) > 0.9


def test_object_and_background_differ_in_texture_and_in_colour():
    """The object is the rougher of the two, and their mean colours lie apart."""
    source = Synthetic()
    rougher, gaps = [], []
    for index in range(300):
        example = source[index]
        pixels, mask = example["image"] / 255.0, example["object_mask"]
        steps = np.abs(np.diff(pixels, axis=1)).sum(-1)
        inside, outside = mask[:, 1:] & mask[:, :-1], ~(mask[:, 1:] | mask[:, :-1])
        rougher.append(steps[inside].mean() / steps[outside].mean())
        gaps.append(np.linalg.norm(pixels[mask].mean(0) - pixels[~mask].mean(0)))
    assert np.quantile(rougher, 0.05) > 1.2
    assert np.median(gaps) > 0.2


def test_colour_says_little_about_the_class():
    """A ridge classifier on mean colours stays near chance (10 %)."""
    source = Synthetic()
    means = np.stack([source[i]["image"].mean((0, 1)) for i in range(2000)]) / 255
    features = np.concatenate([means, means**2, np.ones((2000, 1))], 1)
    target = np.eye(10)[np.arange(2000) % 10]
    weights = np.linalg.lstsq(features[:1000], target[:1000], rcond=None)[0]
    right = (features[1000:] @ weights).argmax(1) == target[1000:].argmax(1)
    assert right.mean() < 0.25


def test_channels():
    grey, colour, alpha = (Synthetic(channels=c)[5]["image"] for c in (1, 3, 4))
    assert grey.shape == (32, 32, 1) and alpha.shape == (32, 32, 4)
    np.testing.assert_array_equal(alpha[..., :3], colour)
    assert (alpha[..., 3] == 255).all()


def test_fingerprint_knows_every_parameter():
    sources = [
        Synthetic(),
        Synthetic(seed=1),
        Synthetic(split="test"),
        Synthetic(image_size=(32, 64)),
    ]
    for field in dataclasses.fields(SyntheticConfig):
        value = getattr(SyntheticConfig(), field.name)
        other = tuple(v * 0.9 for v in value) if isinstance(value, tuple) else value / 2
        other = int(other) if isinstance(value, int) else other
        config = dataclasses.replace(SyntheticConfig(), **{field.name: other})
        if field.name != "test_length":
            sources.append(Synthetic(config=config))
    prints = [source.fingerprint() for source in sources]
    assert len(set(prints)) == len(prints)
    assert Synthetic().fingerprint() == prints[0]
