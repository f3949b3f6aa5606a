"""The classes of pixels are cropped and mirrored as the image is."""

from __future__ import annotations

import numpy as np
import pytest

from sgmae_jax.data import (
    AugmentConfig,
    ImageRows,
    InMemory,
    Loader,
    Subset,
    Synthetic,
    SyntheticConfig,
    eval_image,
    shown_segments,
    train_image,
    whole_image,
)

LENGTHS = SyntheticConfig(train_length=64, test_length=16)


def ramp(height, width):
    """Every pixel says where it is: rows in one channel, columns in the other."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x], -1).astype(np.uint8)


def apart(shown, place, axis):
    """How far the class of every pixel lies from what the image shows, in pixels."""
    found = shown_segments(place[..., axis], shown.view, shown.image.shape[:2])
    return np.abs(found.astype(int) - shown.image[..., axis])


@pytest.mark.parametrize("size", [(24, 24), (16, 40), (60, 52)])
@pytest.mark.parametrize("seed", range(8))
def test_labels_and_pixels_agree(size, seed):
    """The image was resized in between, so within a source pixel or a shown one."""
    place = ramp(50 + seed, 64 - 3 * seed)
    rng = np.random.default_rng(seed)
    shown = train_image(rng, place, size, AugmentConfig())
    for axis in (0, 1):
        # A pixel shown covers so many of the source; bicubic rings at the border.
        step = abs(shown.view[axis, 1]) * place.shape[axis] / size[axis]
        assert apart(shown, place, axis)[2:-2, 2:-2].max() <= max(1.0, step)
    for crop in (0.7, 1.0):
        for axis in (0, 1):
            assert apart(eval_image(place, size, crop), place, axis).max() <= 3


def test_whole_images_and_mirrors_are_exact():
    place = ramp(12, 20)
    same = whole_image(place, (12, 20))
    assert not apart(same, place, 0).any() and not apart(same, place, 1).any()
    config = AugmentConfig(scale=(1.0, 1.0), ratio=(20 / 12, 20 / 12))
    mirrored = 0
    for seed in range(10):
        shown = train_image(np.random.default_rng(seed), place, (12, 20), config)
        mirrored += shown.view[1, 1] < 0
        assert not apart(shown, place, 0).any() and not apart(shown, place, 1).any()
    assert 0 < mirrored < 10


def test_an_enlarged_pixel_keeps_its_class():
    segments = np.arange(6, dtype=np.uint8).reshape(2, 3)
    found = shown_segments(segments, np.float32([[0, 1], [0, 1]]), (8, 12))
    np.testing.assert_array_equal(found, segments.repeat(4, 0).repeat(4, 1))
    found = shown_segments(segments, np.float32([[0, 1], [1, -1]]), (2, 3))
    np.testing.assert_array_equal(found, segments[:, ::-1])
    found = shown_segments(segments, np.float32([[0, 0.5], [1 / 3, 1 / 3]]), (2, 2))
    assert (found == 1).all()


def make(source, *, segments=True, **options):
    rows = ImageRows((24, 16), segments=segments)
    return Loader(source, rows, batch_size=16, seed=3, **options)


def test_batches_hold_them_only_if_asked():
    source = Synthetic(config=LENGTHS)
    given, plain = make(source), make(source, segments=False)
    for step in (0, 5):
        found, bare = given.batch_at(step), plain.batch_at(step)
        segments = found.pop("segments")
        assert segments.shape == (16, 24, 16) and segments.dtype == np.uint8
        assert found.keys() == bare.keys()
        for name in bare:
            np.testing.assert_array_equal(found[name], bare[name])
        for row, index in enumerate(found["id"]):
            whole = source[int(index)]["segments"]
            wanted = shown_segments(whole, found["view"][row], (24, 16))
            np.testing.assert_array_equal(segments[row], wanted)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_processes_and_sweeps(threads):
    source = InMemory(Synthetic(config=LENGTHS))
    with_threads = make(source, threads=threads)
    for step, batch in with_threads.iterate():
        np.testing.assert_array_equal(
            batch["segments"], make(source).batch_at(step)["segments"]
        )
        if step == 5:
            break
    halves = [make(source, process_index=i, process_count=2) for i in (0, 1)]
    joined = np.concatenate([half.batch_at(1)["segments"] for half in halves])
    np.testing.assert_array_equal(joined, make(source).batch_at(1)["segments"])
    assert sum(len(batch["segments"]) for batch in with_threads.sweep()) == 64


def test_textures_name_the_shape_and_wrappers_pass_it_on():
    source = Synthetic(config=LENGTHS, image_size=(20, 28))
    part = Subset(source, np.array([3, 7]), name="part")
    for one in (source, part, InMemory(part)):
        assert one.pixel_classes == ("background", *source.classes)
    for index in range(20):
        example = source[index]
        wanted = np.where(example["object_mask"], example["label"] + 1, 0)
        np.testing.assert_array_equal(example["segments"], wanted)
        assert example["segments"].dtype == np.uint8
        assert source.pixel_classes[wanted.max()] == source.classes[example["label"]]
