import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.data import BadImage, eval_image
from sgmae_jax.evaluation import extract_features, raw_pixels


class Pictures:
    """Item i is an image of the one value i, in sizes that vary; some are bad."""

    name = "pictures"
    classes = ("even", "odd")

    def __init__(self, size, *, bad=(), unlabelled=()):
        self.size, self.bad, self.unlabelled = size, bad, unlabelled

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.bad:
            raise BadImage(f"picture{index}.png", "truncated")
        image = np.full((8 + index % 3, 9 + index % 4, 3), index, np.uint8)
        return {"image": image, "label": -1 if index in self.unlabelled else index % 2}

    def fingerprint(self):
        return "x"


def test_every_item_once_in_order_with_its_label():
    found = extract_features(
        raw_pixels, Pictures(21), image_size=(4, 6), batch_size=8, limit=None
    )
    assert found.features.shape == (21, 4 * 6 * 3)
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(found.features[:, 0] * 255, np.arange(21), rtol=1e-6)
    np.testing.assert_array_equal(found.labels, np.arange(21) % 2)
    np.testing.assert_array_equal(found.ids, np.arange(21))
    assert found.bad == ()


def test_the_last_batch_is_padded_so_one_compilation_serves_all():
    shapes, traced = set(), []

    @jax.jit
    def encode(images):
        traced.append(images.shape)
        return images.astype(jnp.float32).mean((1, 2))

    def spy(images):
        shapes.add((images.shape, images.dtype))
        return encode(images)

    found = extract_features(spy, Pictures(21), image_size=(8, 8), batch_size=8)
    assert shapes == {((8, 8, 8, 3), np.dtype(np.uint8))}
    assert len(traced) == 1
    np.testing.assert_allclose(found.features[:, 1], np.arange(21), rtol=1e-6)


def test_crop_is_that_of_the_data_package():
    class One(Pictures):
        def __getitem__(self, index):
            rng = np.random.default_rng(index)
            image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            return {"image": image, "label": 0}

    found = extract_features(
        raw_pixels, One(3), image_size=(8, 12), crop=0.7, batch_size=2
    )
    shown = [eval_image(One(3)[i]["image"], (8, 12), 0.7).image for i in range(3)]
    expected = np.stack([image.ravel() for image in shown])
    np.testing.assert_array_equal(found.features * 255, expected)


def test_bad_images_are_left_out_and_named():
    # A whole batch is bad: it is passed over.
    source = Pictures(12, bad=(1, 4, 5, 6, 7))
    found = extract_features(raw_pixels, source, image_size=(4, 4), batch_size=4)
    np.testing.assert_array_equal(found.ids, [0, 2, 3, 8, 9, 10, 11])
    np.testing.assert_array_equal(found.labels, found.ids % 2)
    np.testing.assert_allclose(found.features[:, 0] * 255, found.ids, rtol=1e-6)
    assert found.bad == tuple(f"picture{i}.png" for i in (1, 4, 5, 6, 7))


def test_limit_takes_a_fixed_fair_subset():
    # Sorted by class, as folders are: the first items alone would be one class.
    class Sorted(Pictures):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"label": int(index >= 100)}

    def ids(limit):
        return extract_features(
            raw_pixels, Sorted(200), image_size=(4, 4), batch_size=64, limit=limit
        )

    part = ids(60)
    assert len(set(part.ids)) == 60
    assert 15 < part.labels.sum() < 45
    np.testing.assert_array_equal(part.ids, ids(60).ids)
    assert len(ids(200).ids) == len(ids(999).ids) == 200


def test_threads_do_not_change_the_order():
    class Slow(Pictures):
        gate = threading.Event()

        def __getitem__(self, index):
            # The first item waits until a later one has been read.
            if index == 0:
                assert self.gate.wait(timeout=10)
            elif index == 3:
                self.gate.set()
            return super().__getitem__(index)

    found = extract_features(
        raw_pixels, Slow(8), image_size=(4, 4), batch_size=4, threads=4
    )
    np.testing.assert_array_equal(found.ids, np.arange(8))


def test_sharded_encoder():
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def encode(images):
        return jnp.asarray(jax.device_put(images, sharding), jnp.bfloat16).mean((1, 2))

    found = extract_features(encode, Pictures(19), image_size=(4, 4), batch_size=16)
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(found.features[:, 0], np.arange(19))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Pictures(9, unlabelled=(7,)), "'pictures' has no label for item 7"),
        (Pictures(3, bad=(0, 1, 2)), "'pictures' has no readable item"),
        (Pictures(0), "'pictures' has no readable item"),
    ],
)
def test_sources_that_cannot_be_scored(source, message):
    with pytest.raises(ValueError, match=message):
        extract_features(raw_pixels, source, image_size=(4, 4), batch_size=4)
