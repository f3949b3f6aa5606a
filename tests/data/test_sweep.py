"""A sweep shows every example once, whole, in order."""

from __future__ import annotations

import numpy as np
import pytest

from sgmae_jax.data import Loader, TooManyBad, whole_image
from tests.data.test_loader import SOURCE, Numbers, assert_equal, loader, threads_alive


def ids_of(batches) -> list[int]:
    return np.concatenate([batch["id"] for batch in batches]).tolist()


def test_every_example_once_whole_and_in_order():
    batches = list(loader(batch_size=32, image_size=(24, 20)).sweep())
    assert len(batches) == 4
    # 100 images in four batches of 32: the last is filled from the start.
    assert ids_of(batches) == [*range(100), *range(28)]
    for batch in batches:
        assert batch["image"].shape == (32, 24, 20, 3)
        assert (batch["epoch"] == 0).all()
        assert (batch["view"] == np.float32([[0, 1], [0, 1]])).all()
        for index, image in zip(batch["id"], batch["image"], strict=True):
            expected = whole_image(SOURCE[int(index)]["image"], (24, 20)).image
            np.testing.assert_array_equal(image, expected)
        assert batch["label"].tolist() == (batch["id"] % 10).tolist()
    assert {k: v.dtype for k, v in batches[0].items()} == {
        k: v.dtype for k, v in loader().batch_at(0).items()
    }


@pytest.mark.parametrize(("size", "batches"), [(1, 100), (50, 2), (100, 1), (99, 2)])
def test_the_number_of_batches(size, batches):
    ids = ids_of(loader(batch_size=size).sweep())
    assert len(ids) == size * batches and ids[:100] == list(range(100))


@pytest.mark.parametrize("options", [{"threads": 5, "prefetch": 9}, {"seed": 3}])
def test_neither_threads_nor_the_seed_change_it(options):
    for one, two in zip(loader(**options).sweep(), loader().sweep(), strict=True):
        assert_equal(one, two)


def test_processes_share_its_batches():
    parts = [
        list(loader(process_index=index, process_count=4).sweep()) for index in range(4)
    ]
    for whole, *blocks in zip(loader().sweep(), *parts, strict=True):
        joined = {key: np.concatenate([b[key] for b in blocks]) for key in whole}
        assert_equal(joined, whole)


def test_a_bad_image_is_replaced_and_counted():
    source = Numbers(20, bad=(3, 4, 19))
    made = loader(source, batch_size=10, max_bad_fraction=0.2)
    ids = ids_of(made.sweep())
    assert ids == [*range(3), 5, 5, *range(5, 19), 0]
    assert made.bad.count == 3
    strict: Loader = loader(source, batch_size=10, max_bad_fraction=0.1)
    with pytest.raises(TooManyBad):
        list(strict.sweep())


def test_closing_it_midway_ends_its_threads():
    before = threads_alive()
    sweep = loader(Numbers(50, seconds=0.001), threads=3, prefetch=3).sweep()
    next(sweep)
    assert threads_alive() == before + 3
    sweep.close()
    assert threads_alive() == before
    for _ in loader(Numbers(50), threads=3).sweep():
        pass
    assert threads_alive() == before
