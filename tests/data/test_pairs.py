"""Images and masks in folders: what is read, what is bad, what is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.data import BadImage, DataError, ImageRows, Loader, open_source
from sgmae_jax.data.pairs import Pairs
from tests.data.test_folder import tarred, zipped

SIZE = (6, 9)


def png(pixels, mode=None, palette=None) -> bytes:
    image = Image.fromarray(pixels)
    if palette is not None:
        image = Image.fromarray(pixels).convert("L")
        image.putpalette(palette)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def photo(seed, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def mask(seed, classes=3, size=SIZE) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, classes, size, np.uint8)
    found[0, 0] = 255
    return found


def grey_of_two_bits() -> bytes:
    """A PNG that Pillow itself cannot write: one row of four pixels, 0 to 3."""

    def chunk(kind, data):
        sum32 = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum32

    head = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)
    rows = zlib.compress(b"\0\x1b")
    parts = (b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pairs(count, prefix=""):
    files = {}
    for i in range(count):
        files[f"{prefix}images/a/{i}.jpg"] = png(photo(i))  # by content, not by name
        files[f"{prefix}masks/a/{i}.png"] = png(mask(i))
    return files


@pytest.fixture
def root(tmp_path):
    files = pairs(4, "train/") | pairs(2, "val/")
    return write(tmp_path / "set", {**files, "classes.txt": b"sky\nsea\nsand\n"})


def test_disk_zip_and_tar_agree(root, tmp_path):
    places = [
        root,
        zipped(root, tmp_path / "flat.zip"),
        zipped(root, tmp_path / "rooted.zip", rooted=True),
        tarred(root, tmp_path / "set.tar"),
    ]
    for split, count in (("train", 4), ("val", 2)):
        first, *others = (Pairs(str(place), split=split) for place in places)
        assert first.pixel_classes == ("sky", "sea", "sand")
        for source in (first, *others):
            assert len(source) == count
            assert source.fingerprint() == first.fingerprint()
            assert source.pixel_classes == first.pixel_classes
            for index in range(count):
                example = source[index]
                np.testing.assert_array_equal(example["image"], photo(index))
                np.testing.assert_array_equal(example["segments"], mask(index))
                assert example["label"] == -1
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        Pairs(str(root), split="test")


def test_the_index_counts_and_not_the_colour(tmp_path):
    palette = np.random.default_rng(0).integers(0, 256, 768).tolist()
    files = pairs(3)
    files["masks/a/1.png"] = png(mask(1), palette=palette)
    files["masks/a/2.png"] = png(mask(2, 2) % 2 * 255, mode="1")
    source = Pairs(str(write(tmp_path, files)))
    np.testing.assert_array_equal(source[1]["segments"], mask(1))
    np.testing.assert_array_equal(source[2]["segments"], mask(2, 2) % 2)


def test_classes_are_counted_over_all_splits_without_their_names(root):
    (root / "classes.txt").unlink()
    (root / "val/masks/a/0.png").write_bytes(png(mask(0, classes=7)))
    (root / "val/masks/a/1.png").write_bytes(b"damaged")
    for split in ("train", "val"):
        source = open_source("pairs", path=str(root), split=split)
        assert source.pixel_classes == tuple("0123456")


def test_the_fingerprint_knows_masks_and_images(root):
    first = Pairs(str(root)).fingerprint()
    for name in ("masks/a/0.png", "images/a/0.jpg"):
        file = root / "train" / name
        before = file.read_bytes()
        file.write_bytes(before + b"\0")
        assert Pairs(str(root)).fingerprint() != first
        file.write_bytes(before)
    assert Pairs(str(root)).fingerprint() == first
    (root / "classes.txt").write_text("sky\nsea\nmud\n")
    assert Pairs(str(root)).fingerprint() != first


BAD = {
    "no mask": (None, r"images/a/1.jpg: has no mask train/masks/a/1.png"),
    "another size": (png(mask(1, size=(6, 8))), "has 6x8 pixels, its image 6x9"),
    "a class too high": (png(mask(1, classes=9)), "value 8, but classes are 0 to 2"),
    "colours": (png(photo(1)), "an index of 8 bits a pixel .*, this is PNG with RGB"),
    "16 bits": (png(mask(1).astype(np.uint16)), "this is PNG with I;16"),
    "2 bits": (grey_of_two_bits(), "a mask of 2 bits: save the indices with 8"),
    "damaged": (png(mask(1))[:60], "masks/a/1.png"),
    "not an image": (b"GIF", "not an image of format"),
    "empty": (b"", "empty file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pairs_name_file_and_reason(name, root):
    data, message = BAD[name]
    place = root / "train" / "masks" / "a" / "1.png"
    place.unlink()
    if data is not None:
        place.write_bytes(data)
    source = Pairs(str(root))
    assert len(source) == 4
    with pytest.raises(BadImage, match=message) as caught:
        source[1]
    assert str(root) not in str(caught.value)
    np.testing.assert_array_equal(source[2]["segments"], mask(2))
    loader = Loader(
        source,
        ImageRows(SIZE, segments=True),
        batch_size=4,
        seed=0,
        varied=False,
        max_bad_fraction=0.5,
    )
    # The next good one stands in, with its own mask.
    assert sorted(loader.batch_at(0)["id"]) == [0, 2, 2, 3] and loader.bad.count == 1


def test_a_mask_that_is_a_jpeg(root):
    buffer = io.BytesIO()
    Image.fromarray(mask(1)).save(buffer, "JPEG")
    (root / "train/masks/a/1.png").write_bytes(buffer.getvalue())
    with pytest.raises(BadImage, match=r"must be a PNG .*, this is JPEG with L"):
        Pairs(str(root))[1]


ONE, OTHER = png(photo(0)), png(mask(0))
WRONG = {
    "masks alone": (
        {"masks/0.png": OTHER, "a.png": ONE},
        "of 0 images and 1 masks of the split 'train' no two are a pair",
    ),
    "other names": (
        {"images/0.png": ONE, "masks/1.png": OTHER},
        "of 1 images and 1 masks",
    ),
    "other folders": ({"images/0.png": ONE, "labels/0.png": OTHER}, "1 images and 0"),
    "nothing": ({"notes.txt": b""}, "holds no images"),
    "nothing labelled": (
        {"images/0.png": ONE, "masks/0.png": png(mask(0) | 255)},
        "no mask has a labelled pixel",
    ),
    "no class": (pairs(1) | {"classes.txt": b"\n"}, "must name 1 to 255 classes"),
    "a gap": (pairs(1) | {"classes.txt": b"a\n\nc\n"}, "none empty; it has 3 lines"),
    "too many": (pairs(1) | {"classes.txt": b"a\n" * 256}, "it has 256 lines"),
    "not text": (pairs(1) | {"classes.txt": b"\xff\xfe"}, "cannot be read as UTF-8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_opened_is_one_line(name, tmp_path):
    files, message = WRONG[name]
    with pytest.raises(DataError, match=message) as caught:
        open_source("pairs", path=str(write(tmp_path, files)))
    assert "\n" not in str(caught.value)
