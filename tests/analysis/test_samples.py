"""Images, ids and true objects belong together, whatever is left out."""

import numpy as np
import pytest

from sgmae_jax.analysis.clusters import token_object
from sgmae_jax.analysis.samples import load_samples
from sgmae_jax.data import BadImage, DataError, open_source

OPTIONS = {"image_size": (32, 32), "patch_size": (4, 4)}


class Painted:
    """Images that are white on the object and black elsewhere; some are bad."""

    name, classes = "painted", ("one",)

    def __init__(self, *, bad=(), unmarked=()):
        self._bad, self._unmarked = bad, unmarked

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index in self._bad:
            raise BadImage(f"{index}.png", "is cut off")
        mask = np.zeros((40, 50), bool)
        mask[5 + index : 25 + index, 10:30] = True
        image = np.repeat(mask[..., None], 3, -1).astype(np.uint8) * 255
        item = {"image": image, "label": -1, "object_mask": mask}
        if index in self._unmarked:
            del item["object_mask"]
        return item

    def fingerprint(self):
        return "painted"


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.6])
def test_the_mask_is_cropped_like_its_image(crop):
    samples = load_samples(Painted(), count=12, crop=crop, **OPTIONS)
    assert samples.images.shape == (12, 32, 32, 3)
    for image, inside in zip(samples.images, samples.objects, strict=True):
        seen = token_object(image[..., 0] > 127, (4, 4))
        np.testing.assert_array_equal(inside, seen)
        assert 0 < inside.sum() < 64


def test_the_same_images_every_time_in_the_order_of_the_source():
    source = open_source("synthetic", split="test")
    samples = load_samples(source, count=9, crop=1.0, **OPTIONS)
    again = load_samples(source, count=9, crop=1.0, **OPTIONS)
    assert (np.diff(samples.ids) > 0).all() and len(set(samples.ids)) == 9
    for one, other in zip(samples, again, strict=True):
        np.testing.assert_array_equal(one, other)
    few = load_samples(source, count=4, crop=1.0, **OPTIONS)
    assert set(few.ids) < set(samples.ids)
    for row, index in enumerate(samples.ids):
        item = source[int(index)]
        np.testing.assert_array_equal(samples.images[row], item["image"])
        expected = token_object(item["object_mask"], (4, 4))
        np.testing.assert_array_equal(samples.objects[row], expected)


def test_bad_images_are_left_out_and_named():
    lines = []
    source = Painted(bad=(3, 7))
    samples = load_samples(source, count=99, crop=1.0, log=lines.append, **OPTIONS)
    assert samples.ids.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert lines == [f"left out: {index}.png: is cut off" for index in (3, 7)]


def test_objects_count_only_if_all_are_known():
    samples = load_samples(Painted(unmarked=(2,)), count=12, crop=1.0, **OPTIONS)
    assert samples.objects is None and len(samples.images) == 12


def test_nothing_readable_is_one_line():
    with pytest.raises(DataError, match="painted has no readable image"):
        load_samples(
            Painted(bad=range(12)), count=3, crop=1.0, log=lambda _: None, **OPTIONS
        )
