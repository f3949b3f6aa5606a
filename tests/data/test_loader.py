"""Batches follow from (seed, step) alone, and bad images are dealt with."""

from __future__ import annotations

import itertools
import threading
import time
import zlib

import numpy as np
import pytest

from sgmae_jax.data import (
    AugmentConfig,
    BadImage,
    DataError,
    ImageRows,
    InMemory,
    Loader,
    Synthetic,
    SyntheticConfig,
    TooManyBad,
    eval_image,
    open_source,
    train_image,
)

SOURCE = InMemory(Synthetic(config=SyntheticConfig(train_length=100)))


class Numbers:
    """Image i is filled with i; the ids in `bad` are bad; reading may take time."""

    name = "numbers"
    classes = ("even", "odd")
    pixel_classes = ()

    def __init__(self, length: int = 50, bad: tuple[int, ...] = (), seconds: float = 0):
        self._length = length
        self._bad = frozenset(bad)
        self._seconds = seconds

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        time.sleep(self._seconds)
        if index in self._bad:
            raise BadImage(f"{index}.png", "odd")
        return {"image": np.full((8, 8, 3), index, np.uint8), "label": index % 2}

    def fingerprint(self):
        return "numbers"


def loader(source=SOURCE, **options) -> Loader:
    rows = ImageRows(options.pop("image_size", (32, 32)))
    defaults = {"batch_size": 16, "seed": 0, "max_bad_fraction": 0.0}
    return Loader(source, rows, **(defaults | options))


def by_example(batches) -> dict[tuple[int, int], bytes]:
    return {
        (int(epoch), int(index)): image.tobytes()
        for batch in batches
        for epoch, index, image in zip(
            batch["epoch"], batch["id"], batch["image"], strict=True
        )
    }


def assert_equal(first, second) -> None:
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
        assert first[key].dtype == second[key].dtype


def test_the_parts_of_a_batch():
    batch = loader().batch_at(7)
    assert batch["image"].shape == (16, 32, 32, 3) and batch["image"].dtype == np.uint8
    for key in ("label", "id", "epoch"):
        assert batch[key].shape == (16,) and batch[key].dtype == np.int32
    assert batch["view"].shape == (16, 2, 2) and batch["view"].dtype == np.float32
    assert (batch["epoch"] == 1).all()
    assert batch["label"].tolist() == (batch["id"] % 10).tolist()


def test_every_epoch_is_a_permutation_of_its_own():
    made = loader(batch_size=10)
    assert made.steps_per_epoch == 10
    orders = []
    for epoch in range(3):
        batches = [made.batch_at(epoch * 10 + step) for step in range(10)]
        order = np.concatenate([batch["id"] for batch in batches])
        assert sorted(order) == list(range(100))
        assert all((batch["epoch"] == epoch).all() for batch in batches)
        orders.append(order.tolist())
    assert orders[0] != orders[1] != orders[2] != list(range(100))
    other_seed = loader(batch_size=10, seed=1).batch_at(0)["id"].tolist()
    assert other_seed != orders[0][:10]


def test_the_rest_of_an_epoch_is_dropped():
    made = loader(batch_size=30)
    assert made.steps_per_epoch == 3
    ids = np.concatenate([made.batch_at(step)["id"] for step in range(3)])
    assert len(set(ids.tolist())) == 90
    assert (made.batch_at(3)["epoch"] == 1).all()


@pytest.mark.fault(19)
def test_an_example_looks_the_same_at_every_batch_size():
    whole = by_example(loader(batch_size=100).batch_at(s) for s in range(2))
    for size in (1, 7, 32):
        made = loader(batch_size=size)
        part = by_example(made.batch_at(s) for s in range(made.steps_per_epoch))
        assert part.items() <= whole.items()
    assert whole[0, 5] != whole[1, 5]


@pytest.mark.parametrize("threads", [1, 2, 5, 40])
def test_threads_and_prefetch_change_nothing(threads):
    made = loader(threads=threads, prefetch=1 + threads % 3)
    for step, batch in itertools.islice(made.iterate(4), 6):
        assert_equal(batch, loader().batch_at(step))


@pytest.mark.parametrize("count", [2, 4, 16])
def test_processes_share_the_global_batch(count):
    for step in (0, 9):
        parts = [
            loader(process_index=index, process_count=count).batch_at(step)
            for index in range(count)
        ]
        joined = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        assert_equal(joined, loader().batch_at(step))


def test_resuming_equals_running_through():
    through = list(itertools.islice(loader().iterate(0), 20))
    assert [step for step, _ in through] == list(range(20))
    for start in (1, 6, 13):
        resumed = itertools.islice(loader().iterate(start), 20 - start)
        for (step, batch), (expected_step, expected) in zip(
            resumed, through[start:], strict=True
        ):
            assert step == expected_step
            assert_equal(batch, expected)


def test_without_augmentation_the_centre_is_shown_in_every_epoch():
    made = loader(varied=False, image_size=(24, 20))
    batch = made.batch_at(0)
    for index, image in zip(batch["id"], batch["image"], strict=True):
        expected = eval_image(SOURCE[int(index)]["image"], (24, 20))
        np.testing.assert_array_equal(image, expected.image)
    np.testing.assert_array_equal(batch["view"], [expected.view] * 16)


def test_the_view_is_that_of_the_image():
    batch = loader().batch_at(8)
    for row, index in enumerate(batch["id"]):
        rng = np.random.default_rng([0, 1, zlib.crc32(b"augment"), index])
        shown = train_image(rng, SOURCE[int(index)]["image"], (32, 32), AugmentConfig())
        np.testing.assert_array_equal(batch["image"][row], shown.image)
        np.testing.assert_array_equal(batch["view"][row], shown.view)


@pytest.mark.fault(11)
def test_a_bad_image_is_replaced_by_the_next_good_one():
    source = Numbers(50, bad=(3, 10, 11, 12, 49))
    made = loader(source, batch_size=50, varied=False, max_bad_fraction=0.1)
    order = np.random.default_rng([0, 0, zlib.crc32(b"order")])
    expected = order.permutation(50)
    swap = {3: 4, 10: 13, 11: 13, 12: 13, 49: 0}
    expected = [swap.get(int(index), int(index)) for index in expected]
    for _ in range(2):
        batch = made.batch_at(0)
        assert batch["id"].tolist() == expected
        assert batch["image"][:, 0, 0, 0].tolist() == expected
        assert batch["label"].tolist() == [index % 2 for index in expected]
        # Met twice, counted once.
        assert made.bad.count == 5
    assert sorted(made.bad.names) == [
        f"{index}.png: odd" for index in sorted(map(str, swap))
    ]


@pytest.mark.fault(11)
def test_the_first_twenty_bad_images_are_named():
    source = Numbers(100, bad=tuple(range(30)))
    made = loader(source, batch_size=100, max_bad_fraction=0.3)
    made.batch_at(0)
    assert made.bad.count == 30
    assert len(made.bad.names) == 20


@pytest.mark.parametrize(
    ("bad", "fraction", "stops"),
    [
        (1, 0.0, True),
        (0, 0.0, False),
        (10, 0.1, False),
        (11, 0.1, True),
        (99, 0.99, False),
        (100, 0.99, True),
        (100, 1.0, True),
    ],
)
@pytest.mark.fault(11)
def test_the_run_stops_past_the_share(bad, fraction, stops):
    source = Numbers(100, bad=tuple(range(bad)))
    made = loader(source, batch_size=50, max_bad_fraction=fraction)
    if not stops:
        assert (made.batch_at(0)["id"] >= bad).all()
        assert (made.batch_at(1)["id"] >= bad).all()
        return
    for _ in range(2):
        with pytest.raises(TooManyBad, match=r"numbers"):
            list(itertools.islice(made.iterate(0), 2))
    assert made.bad.count > fraction * 100 or bad == 100
    with pytest.raises(TooManyBad):
        for step in range(2):
            made.batch_at(step)


@pytest.mark.fault(11)
def test_one_percent_of_damaged_files(tmp_path):
    """Files on disk damaged in many ways: counted, named, and stopped at."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(300):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:03}.jpg")
    whole = (tmp_path / "000.jpg").read_bytes()
    damage = {"010": b"", "020": b"text" * 99, "030": whole[: len(whole) - 60]}
    for name, data in damage.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    source = open_source("folder", path=str(tmp_path))
    made = loader(source, batch_size=300, max_bad_fraction=0.01, threads=4)
    _, batch = next(made.iterate(0))
    assert made.bad.count == 3
    named = " ".join(made.bad.names)
    for name, reason in (("010", "empty"), ("020", "not an"), ("030", "truncated")):
        assert f"{name}.jpg" in named and reason in named
    assert not {10, 20, 30} & set(batch["id"].tolist())
    strict = loader(source, batch_size=300, max_bad_fraction=0.009)
    with pytest.raises(TooManyBad, match=r"3 of 300 .*\.jpg"):
        next(strict.iterate(0))


@pytest.mark.fault(18)
def test_other_errors_reach_the_consumer_in_order_and_named():
    class Breaks(Numbers):
        def __getitem__(self, index):
            if index == 7:
                raise OSError("disk gone")
            return super().__getitem__(index)

    made = loader(Breaks(50), batch_size=5)
    broken = next(
        s for s in range(10) if 7 in loader(Numbers(50), batch_size=5).batch_at(s)["id"]
    )
    batches = made.iterate(0)
    for step in range(broken):
        assert next(batches)[0] == step
    with pytest.raises(RuntimeError, match=r"example 7 of numbers: .*disk gone"):
        next(batches)


def threads_alive() -> int:
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith("loader") for name in names)


def test_closing_the_iterator_ends_its_threads():
    before = threads_alive()
    batches = loader(Numbers(50, seconds=0.001), threads=3, prefetch=4).iterate(0)
    next(batches)
    assert threads_alive() == before + 3
    batches.close()
    assert threads_alive() == before
    failing = loader(Numbers(50, bad=tuple(range(50))), threads=3).iterate(0)
    with pytest.raises(TooManyBad):
        next(failing)
    assert threads_alive() == before


def test_wait_seconds_tell_a_slow_source_from_a_slow_consumer():
    slow = loader(Numbers(50, seconds=0.005), batch_size=10, threads=1, prefetch=1)
    for _ in itertools.islice(slow.iterate(0), 4):
        pass
    assert slow.wait_seconds > 0.15
    fast = loader(Numbers(50), batch_size=10, prefetch=3)
    batches = fast.iterate(0)
    next(batches)
    first = fast.wait_seconds
    for _ in range(4):
        time.sleep(0.1)
        next(batches)
    batches.close()
    assert fast.wait_seconds - first < 0.2


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 101},
        {"batch_size": 15, "process_count": 2},
        {"process_index": 2, "process_count": 2},
        {"process_index": -1},
        {"process_count": 0},
        {"threads": 0},
        {"prefetch": 0},
        {"seed": -1},
        {"image_size": (0, 32)},
    ],
)
def test_values_out_of_range(options):
    with pytest.raises(DataError):
        loader(**options)
