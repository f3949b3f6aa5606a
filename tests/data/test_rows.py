"""Rows of any kind become batches; the ones that are held out come in order."""

import numpy as np
import pytest

from sgmae_jax.data import DataError, ImageRows, Loader, plain_batches, stack, steps_in
from tests.data.test_loader import Numbers


class Lengths:
    """Rows of different lengths, padded to the longest of their batch."""

    unit = "words"

    def train(self, item, rng):
        return {"value": self.plain(item)["value"] + rng.integers(100, 200)}

    def plain(self, item):
        number = int(item["image"][0, 0, 0])
        return {"value": np.full(number % 5 + 1, number)}

    whole = plain

    def join(self, rows):
        longest = max(len(row["value"]) for row in rows)
        return stack(
            [
                {"value": np.pad(r["value"], (0, longest - len(r["value"])))}
                for r in rows
            ]
        )


def test_whole_numbers_are_int32_and_arrays_keep_their_type():
    batch = stack(
        [{"a": 3, "b": np.float32([1, 2])}, {"a": 4, "b": np.float32([3, 4])}]
    )
    assert batch["a"].dtype == np.int32 and batch["a"].tolist() == [3, 4]
    assert batch["b"].dtype == np.float32 and batch["b"].tolist() == [[1, 2], [3, 4]]


def test_a_loader_pads_over_all_rows_of_a_batch_whatever_the_threads():
    batches = []
    for threads in (1, 3):
        loader = Loader(
            Numbers(20), Lengths(), batch_size=10, seed=0, varied=False, threads=threads
        )
        _, batch = next(loader.iterate())
        assert batch["value"].shape == (10, 1 + max(i % 5 for i in batch["id"]))
        for row, index in zip(batch["value"], batch["id"], strict=True):
            assert row.tolist() == [index] * (index % 5 + 1) + [0] * (
                len(row) - index % 5 - 1
            )
        batches.append(batch)
    np.testing.assert_array_equal(batches[0]["value"], batches[1]["value"])


def test_chance_follows_from_seed_epoch_and_id():
    def drawn(size, step):
        loader = Loader(Numbers(20), Lengths(), batch_size=size, seed=0)
        batch = loader.batch_at(step)
        return dict(
            zip(batch["id"].tolist(), batch["value"][:, 0].tolist(), strict=True)
        )

    whole = drawn(20, 0)
    assert drawn(10, 0) | drawn(10, 1) == whole
    assert drawn(20, 1) != whole


def test_held_out_items_come_once_in_order_and_the_last_is_repeated():
    source = Numbers(7, bad=(2,))
    found = list(plain_batches(source, ImageRows((8, 8)), 3))
    assert [count for _, count in found] == [2, 3, 1]
    ids = [batch["id"].tolist() for batch, _ in found]
    assert ids == [[0, 1, 1], [3, 4, 5], [6, 6, 6]]
    for batch, _ in found:
        assert batch["image"].shape == (3, 8, 8, 3)
        assert (batch["image"][:, 0, 0, 0] == batch["id"]).all()


def test_messages_call_items_by_their_name():
    with pytest.raises(DataError, match="numbers, which has 5 words"):
        steps_in(Numbers(5), 6, "words")
    with pytest.raises(DataError, match="which has 5 words"):
        Loader(Numbers(5), Lengths(), batch_size=6, seed=0)
    assert steps_in(Numbers(5), 2, "words") == 2
