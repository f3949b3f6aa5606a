"""Holding a source in memory, and parts of one."""

from __future__ import annotations

import numpy as np
import pytest

from sgmae_jax.data import BadImage, InMemory, Subset, Synthetic, SyntheticConfig
from sgmae_jax.data.source import digest

SOURCE = Synthetic(config=SyntheticConfig(train_length=40))


class Counting:
    """Counts its reads; item 3 is bad."""

    name = "counting"
    classes = ("a",)
    pixel_classes = ()

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.reads += 1
        if index == 3:
            raise BadImage("three.png", "odd")
        return {"image": np.full((2, 2 + index, 3), index, np.uint8), "label": 0}

    def fingerprint(self):
        return "f"


def test_memory_holds_what_the_source_gives():
    held = InMemory(SOURCE)
    assert len(held) == 40
    assert (held.name, held.classes) == (SOURCE.name, SOURCE.classes)
    assert held.fingerprint() == SOURCE.fingerprint()
    for index in range(40):
        for key, value in SOURCE[index].items():
            np.testing.assert_array_equal(held[index][key], value)


def test_memory_reads_what_is_asked_for_once_and_keeps_bad_images_bad():
    source = Counting()
    held = InMemory(source)
    assert source.reads == 0
    for _ in range(2):
        assert held[4]["image"].shape == (2, 6, 3)
        with pytest.raises(BadImage, match=r"three\.png: odd"):
            held[3]
    assert source.reads == 2
    with pytest.raises(IndexError):
        held[10]


def test_memory_lets_other_errors_through():
    class Broken(Counting):
        def __getitem__(self, index):
            raise RuntimeError("no disk")

    held = InMemory(Broken())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no disk"):
            held[0]


def test_subset_renumbers():
    part = Subset(SOURCE, np.array([5, 1]), name="part")
    assert len(part) == 2
    np.testing.assert_array_equal(part[1]["image"], SOURCE[1]["image"])
    others = [Subset(SOURCE, np.array(ids), name="part") for ids in ([1, 5], [5, 2])]
    prints = {source.fingerprint() for source in (part, SOURCE, *others)}
    assert len(prints) == 4


def test_digest_keeps_fields_apart_and_takes_any_name():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest([1, 2]) != digest([2, 1])
    assert digest(["\udcff"]) == digest(["\udcff"])
