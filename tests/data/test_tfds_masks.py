"""Prepared TFDS sets whose images come with the classes of their pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.data import BadImage, DataError, open_source

COUNT = 6


def png(pixels):
    """Encoded here, as TFDS would need TensorFlow to do it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return io.BytesIO(buffer.getvalue())


def mask(index):
    """Classes 1 to 3, as Oxford's pets have them, and 4 in one of them."""
    rng = np.random.default_rng(index)
    found = rng.integers(1, 4, (7, 5, 1), np.uint8)
    found[0, 0] = 255
    if index == COUNT - 1:
        found[1, 1] = 4
    return found


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """A function that writes a set with further features, and gives its folder."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    def written(set_name, **masks):
        class Builder(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            name = set_name

            def _info(self):
                features = {"image": tfds.features.Image(shape=(None, None, 3))}
                features = tfds.features.FeaturesDict(features | masks)
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                last = self._examples(COUNT - 1, COUNT)
                return {"train": self._examples(0, COUNT - 1), "test": last}

            def _examples(self, first, last):
                for index in range(first, last):
                    short = index == 2 and set_name == "uneven"
                    image = np.full((6 if short else 7, 5, 3), index, np.uint8)
                    dtype = {one: feature.np_dtype for one, feature in masks.items()}
                    values = {
                        one: png(mask(index)[..., 0].astype(dtype[one]))
                        for one in masks
                    }
                    yield index, {"image": png(image), **values}

            _generate_examples = _examples

        builder = Builder(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
        return str(folder)

    return tfds.features, written


@pytest.mark.parametrize("labelled", [False, True])
def test_masks_equal_what_was_written(prepare, labelled):
    features, written = prepare
    name, feature = "pets", features.Image(shape=(None, None, 1), use_colormap=True)
    if labelled:
        name, feature = "scenes", features.LabeledImage(labels=list("abcde"))
    path = written(name, segmentation_mask=feature)
    for split, count in (("train", COUNT - 1), ("test", 1)):
        source = open_source(f"tfds:{name}", path=path, split=split)
        # Counted over all splits where no names are given.
        assert source.pixel_classes == tuple("abcde" if labelled else "01234")
        assert len(source) == count
        for index in range(count):
            example = source[index]
            wanted = mask(int(example["image"][0, 0, 0]))[..., 0]
            np.testing.assert_array_equal(example["segments"], wanted)


def test_a_mask_of_another_size_is_bad(prepare):
    features, written = prepare
    path = written("uneven", mask=features.LabeledImage(labels=5))
    source = open_source("tfds:uneven", path=path)
    assert source.pixel_classes == tuple("01234")
    bad = []
    for index in range(COUNT - 1):
        try:
            source[index]
        except BadImage as error:
            bad.append(str(error))
    assert len(bad) == 1
    assert "train[" in bad[0] and "].mask: the mask has 7x5 pixels" in bad[0]


def test_depth_is_no_mask_and_two_masks_are_refused(prepare):
    features, written = prepare
    depth = features.Image(shape=(None, None, 1), dtype=np.uint16)
    path = written("deep", depth=depth)
    source = open_source("tfds:deep", path=path)
    assert source.pixel_classes == ()
    masks = [features.Image(shape=(None, None, 1)) for _ in range(2)]
    path = written("two", parts=masks[0], things=masks[1])
    with pytest.raises(DataError, match=r"'two' has several .*\(parts, things\)"):
        open_source("tfds:two", path=path)
