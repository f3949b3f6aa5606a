"""Pixels kept on disk or left with Pillow are those of plain arrays."""

from __future__ import annotations

import io
import pathlib
import threading

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.config import load_config
from sgmae_jax.data import BadImage, DataError, ImageRows, Loader, open_source
from sgmae_jax.data.cache import Cached
from sgmae_jax.data.images import decode_image, decode_picture
from sgmae_jax.domains import images
from tests.data.test_images import BAD, ODD

COUNT = 12


def photograph(seed: int, height: int, width: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    smooth.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def photographs(tmp_path) -> pathlib.Path:
    root = tmp_path / "photographs"
    for kind in ("ant", "bird"):
        (root / kind).mkdir(parents=True)
    for seed in range(COUNT):
        file = root / ("ant", "bird")[seed % 2] / f"{seed:02}.jpg"
        file.write_bytes(photograph(seed, 60 + seed, 90 - seed))
    return root


def batches(source, **options) -> list[dict[str, np.ndarray]]:
    rows = ImageRows((32, 40), **options)
    loader = Loader(source, rows, batch_size=4, seed=3, max_bad_fraction=0.5)
    swept = list(loader.sweep())
    held = Loader(source, rows, batch_size=4, seed=3, varied=False)
    return [*(loader.batch_at(step) for step in range(6)), *swept, held.batch_at(0)]


def assert_same(mine, other):
    for one, two in zip(mine, other, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("how", ["pictures", "cache", "both", "in_memory"])
@pytest.mark.parametrize("pairs", [False, True])
def test_batches_are_bit_equal_to_those_of_arrays(photographs, tmp_path, how, pairs):
    options = {
        "pictures": {"pictures": True},
        "cache": {"cache": str(tmp_path / "kept")},
        "both": {"pictures": True, "cache": str(tmp_path / "kept")},
        "in_memory": {"in_memory": True, "pictures": True},
    }[how]
    plain = open_source("folder", path=str(photographs))
    quick = open_source("folder", path=str(photographs), **options)
    assert quick.fingerprint() == plain.fingerprint()
    assert_same(batches(quick, pairs=pairs), batches(plain, pairs=pairs))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_and_cache_in_any_channels(photographs, tmp_path, channels):
    path, kept = str(photographs), str(tmp_path / "kept")
    plain = open_source("folder", path=path, channels=channels)
    left = open_source("folder", path=path, channels=channels, pictures=True)
    cached = open_source("folder", path=path, channels=channels, cache=kept)
    for index in range(COUNT):
        expected = plain[index]["image"]
        np.testing.assert_array_equal(np.asarray(left[index]["image"]), expected)
        np.testing.assert_array_equal(cached[index]["image"], expected)
        assert cached[index]["label"] == plain[index]["label"]


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_the_same_as_pictures(name):
    data, _ = ODD[name]
    picture = decode_picture(data, name=name)
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), decode_image(data, name=name))


@pytest.mark.parametrize("name", BAD)
@pytest.mark.fault(11)
def test_bad_images_are_bad_as_pictures_too(name):
    data, reason = BAD[name]
    with pytest.raises(BadImage, match=reason):
        decode_picture(data, name="where/it/is.jpg")


@pytest.mark.parametrize("how", ["pictures", "cache"])
@pytest.mark.fault(11)
def test_a_damaged_file_is_replaced_and_named_as_ever(photographs, tmp_path, how):
    victim = photographs / "ant" / "04.jpg"
    victim.write_bytes(victim.read_bytes()[:-40])
    options = {"pictures": True} if how == "pictures" else {"cache": str(tmp_path)}
    sources = (
        open_source("folder", path=str(photographs)),
        open_source("folder", path=str(photographs), **options),
    )
    found = []
    for source in sources:
        rows = ImageRows((16, 16))
        loader = Loader(source, rows, batch_size=12, seed=0, max_bad_fraction=0.1)
        found.append((loader.batch_at(0), loader.bad))
    assert_same([found[0][0]], [found[1][0]])
    assert found[0][1] == found[1][1]
    assert found[1][1].count == 1 and "ant/04.jpg" in found[1][1].names[0]


def test_a_cache_is_filled_once_and_new_files_have_another(photographs, tmp_path):
    kept = tmp_path / "kept"

    class Counted:
        def __init__(self):
            self.inner, self.reads = open_source("folder", path=str(photographs)), 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, index):
            self.reads += 1
            return self.inner[index]

    first, second = Counted(), Counted()
    Cached(first, str(kept), channels=3)
    again = Cached(second, str(kept), channels=3)
    assert [again[index]["image"].shape for index in range(COUNT)]
    assert (first.reads, second.reads) == (COUNT, 0)
    (photographs / "ant" / "00.jpg").write_bytes(photograph(99, 50, 50))
    third = Counted()
    changed = Cached(third, str(kept), channels=3)
    assert third.reads == COUNT and changed[0]["image"].shape == (50, 50, 3)


def test_several_that_open_one_cache_at_once_fill_it_once(photographs, tmp_path):
    kept = str(tmp_path / "kept")
    shapes: list[tuple[int, ...]] = []

    def work() -> None:
        source = open_source("folder", path=str(photographs), cache=kept)
        shapes.append(source[0]["image"].shape)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == [(60, 90, 3)] * 4
    left = [file.name for file in pathlib.Path(kept).iterdir() if file.is_dir()]
    assert len(left) == 1 and not left[0].startswith(".")


@pytest.mark.fault(11)
def test_an_interrupted_filling_leaves_no_cache(photographs, tmp_path, monkeypatch):
    kept = tmp_path / "kept"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sgmae_jax.data.cache.os.fsync", full)
        with pytest.raises(DataError, match="No space left"):
            open_source("folder", path=str(photographs), cache=str(kept))
    assert not [file for file in kept.iterdir() if file.is_dir()]
    assert len(open_source("folder", path=str(photographs), cache=str(kept))) == COUNT


@pytest.mark.fault(11)
def test_a_cache_cut_short_is_refused(photographs, tmp_path):
    path, kept = str(photographs), tmp_path / "kept"
    open_source("folder", path=path, cache=str(kept))
    (pixels,) = kept.glob("*/pixels")
    pixels.write_bytes(pixels.read_bytes()[:-5])
    with pytest.raises(DataError, match="damaged; remove that folder"):
        open_source("folder", path=path, cache=str(kept))


def test_classes_of_pixels_are_kept_too(tmp_path):
    root = tmp_path / "pairs"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for seed in range(3):
        (root / "images" / f"{seed}.jpg").write_bytes(photograph(seed, 20, 30 + seed))
        classes = np.random.default_rng(seed).integers(0, 3, (20, 30 + seed))
        mask = Image.fromarray(classes.astype(np.uint8))
        mask.save(root / "masks" / f"{seed}.png")
    plain = open_source("pairs", path=str(root))
    kept = open_source("pairs", path=str(root), cache=str(tmp_path / "kept"))
    for index in range(3):
        for name in ("image", "segments", "label"):
            np.testing.assert_array_equal(kept[index][name], plain[index][name])


def test_synthetic_images_have_no_cache(tmp_path):
    with pytest.raises(DataError, match="not synthetic"):
        open_source("synthetic", cache=str(tmp_path))


@pytest.mark.parametrize("kept", [False, True])
def test_a_config_reads_folders_quickly(photographs, tmp_path, kept):
    cache = str(tmp_path / "kept") if kept else ""
    changes = {
        "data.source": "folder",
        "data.path": str(photographs),
        "data.cache": cache,
    }
    config = load_config("quickstart", list(changes.items()))
    source = images.open_source(config, "train[:50%]", in_memory=False)
    kind = np.ndarray if kept else Image.Image
    assert isinstance(source[0]["image"], kind)
    assert_same(
        batches(source),
        batches(open_source("folder", path=str(photographs), split="train[:50%]")),
    )
