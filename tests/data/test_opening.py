"""From a config's words to a source; wrong words get one line."""

from __future__ import annotations

import numpy as np
import pytest

from sgmae_jax.data import (
    DataError,
    InMemory,
    SyntheticConfig,
    bounds,
    open_source,
    parse_split,
)

SMALL = SyntheticConfig(train_length=103, test_length=20)


def pixels(split: str, **options) -> list[bytes]:
    source = open_source("synthetic", split=split, synthetic=SMALL, **options)
    return [source[i]["image"].tobytes() for i in range(len(source))]


@pytest.mark.parametrize("cut", ["90%", "0%", "33%", "7", "-13"])
def test_the_two_parts_of_a_cut_make_up_the_split(cut):
    whole = set(pixels("train"))
    assert len(whole) == 103
    first = pixels(f"train[:{cut}]") if cut != "0%" else []
    second = pixels(f"train[{cut}:]")
    assert len(first) + len(second) == 103
    assert set(first) | set(second) == whole


def test_parts_are_shuffled_nested_and_fixed():
    source = open_source("synthetic", split="train[:50%]", synthetic=SMALL)
    labels = [source[i]["label"] for i in range(len(source))]
    assert labels != sorted(labels) and labels[:10] != list(range(10))
    assert pixels("train[:30]") == pixels("train[:60]")[:30]
    assert pixels("train[10:30]") == pixels("train[:30]")[10:]
    assert pixels("test[:1000]") == pixels("test[:]")
    assert set(pixels("test[:]")) == set(pixels("test"))


def test_the_part_does_not_depend_on_the_seed(tmp_path):
    from PIL import Image

    for number in range(30):
        Image.new("L", (1, 1), number).save(tmp_path / f"{number:02}.png")
    parts = [
        open_source("folder", path=str(tmp_path), split="train[:10]", seed=seed)
        for seed in (0, 1)
    ]
    shown = [[int(part[i]["image"].max()) for i in range(10)] for part in parts]
    assert shown[0] == shown[1]
    assert parts[0].fingerprint() == parts[1].fingerprint()


def test_every_option_reaches_the_source():
    source = open_source(
        "synthetic",
        split="test[:5]",
        seed=3,
        channels=4,
        in_memory=True,
        image_size=(16, 24),
        synthetic=SMALL,
    )
    assert isinstance(source, InMemory) and len(source) == 5
    assert source[0]["image"].shape == (16, 24, 4)
    other = open_source("synthetic", split="test[:5]", seed=4, synthetic=SMALL)
    assert other.fingerprint() != source.fingerprint()


def test_parse_split():
    assert parse_split("train") == ("train", "", "")
    assert parse_split("train[:90%]") == ("train", "", "90%")
    assert parse_split("a-b[5:-1]") == ("a-b", "5", "-1")
    for wrong in ("", "train[", "train[5]", "train[:x]", "train[::2]", "train[:-5%]"):
        assert parse_split(wrong) is None


WRONG = {
    "unknown source": ("folders", {}, "'folder', 'pairs' or 'tfds:name'"),
    "tfds without a name": ("tfds:", {}, "'tfds:name'"),
    "no path": ("folder", {}, "a path is needed"),
    "missing path": ("folder", {"path": "nope"}, "'nope' does not exist"),
    "unknown split": ("synthetic", {"split": "val"}, "train and test, not 'val'"),
    "malformed split": ("synthetic", {"split": "train[5]"}, "neither a name nor"),
    "empty part": ("synthetic", {"split": "train[20000:]"}, "is empty"),
    "two channels": ("synthetic", {"channels": 2}, "channels must be one of"),
    "unknown TFDS": ("tfds:nope", {"path": "."}, "no prepared TFDS data set 'nope'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_words_get_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec, options, message = WRONG[name]
    with pytest.raises(DataError) as caught:
        open_source(spec, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_source_keeps_its_examples_whole():
    source = open_source("synthetic", split="train[:3]", synthetic=SMALL)
    assert source[0]["object_mask"].dtype == np.bool_
    assert len(source.classes) == 10


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("", "", (0, 200)),
        ("", "10", (0, 10)),
        ("95%", "", (190, 200)),
        ("-10", "", (190, 200)),
        ("150", "1000", (150, 200)),
        ("30%", "20%", (60, 40)),
    ],
)
def test_bounds_of_a_part(first, last, expected):
    assert bounds(first, last, 200) == expected
