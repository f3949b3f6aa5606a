"""Class folders on disk, in a zip and in a tar."""

from __future__ import annotations

import concurrent.futures
import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.data import BadImage, DataError, open_source
from sgmae_jax.data.files import open_files
from sgmae_jax.data.folder import Folder


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: pathlib.Path, names: list[str]) -> pathlib.Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(seed))
    return root


def zipped(
    root: pathlib.Path, target: pathlib.Path, *, rooted: bool = False
) -> pathlib.Path:
    start = root.parent if rooted else root
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(start))
    return target


def tarred(root: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    with tarfile.open(target, "w") as archive:
        archive.add(root, root.name)
    return target


NAMES = [
    f"{split}/{kind}/{number}.png"
    for split in ("train", "test")
    for kind in ("bird", "ant", "cat")
    for number in range(4)
]


@pytest.fixture
def places(tmp_path):
    root = write(tmp_path / "pets", NAMES)
    return [
        root,
        zipped(root, tmp_path / "pets.zip"),
        zipped(root, tmp_path / "rooted.zip", rooted=True),
        tarred(root, tmp_path / "pets.tar"),
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_disk_zip_and_tar_agree(places, split):
    disk, *archives = (Folder(str(place), split=split) for place in places)
    assert disk.classes == ("ant", "bird", "cat")
    assert [disk[i]["label"] for i in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    for archive in archives:
        assert archive.classes == disk.classes
        assert len(archive) == len(disk) == 12
        assert archive.fingerprint() == disk.fingerprint()
        for index in range(12):
            assert archive[index]["label"] == disk[index]["label"]
            np.testing.assert_array_equal(archive[index]["image"], disk[index]["image"])


def test_pixels_are_those_of_the_file(places):
    first = Folder(str(places[0]), split="train")[0]["image"]
    name = "train/ant/0.png"
    expected = Image.open(io.BytesIO(picture(NAMES.index(name))))
    np.testing.assert_array_equal(first, np.asarray(expected))


def test_many_threads_read_one_archive(places):
    for place in places:
        source = Folder(str(place))
        alone = [source[i]["image"] for i in range(12)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            many = pool.map(lambda i, s=source: s[i % 12]["image"], range(1200))
            for index, image in enumerate(many):
                np.testing.assert_array_equal(image, alone[index % 12])


LAYOUTS = {
    "no splits": (["b/1.png", "a/1.png"], "train", ("a", "b"), [0, 1]),
    "deep class folders": (["b/x/1.png", "a/y/z/1.png"], "train", ("a", "b"), [0, 1]),
    "one class": (["a/1.png", "a/2.png"], "train", ("a",), [0, 0]),
    "flat": (["2.png", "1.png"], "train", ("unlabelled",), [-1, -1]),
    "flat splits": (["train/1.png", "val/2.png"], "val", ("unlabelled",), [-1]),
    "one split": (["train/a/1.png"], "train", ("a",), [0]),
    "unlabelled test": (["train/a/1.png", "test/1.png"], "test", ("a",), [-1]),
    "classes over all splits": (
        ["train/b/1.png", "validation/a/1.png", "validation/b/1.png"],
        "train",
        ("a", "b"),
        [1],
    ),
    "common roots": (["x/y/train/a/1.png", "x/y/test/a/1.png"], "test", ("a",), [0]),
    "a train is a vehicle": (
        ["car/1.png", "train/1.png", "tram/1.png"],
        "train",
        ("car", "train", "tram"),
        [0, 1, 2],
    ),
    "other folders beside splits": (
        ["train/a/1.png", "preview/1.png"],
        "train",
        ("a",),
        [0],
    ),
    "images beside classes": (["a/1.png", "logo.png"], "train", ("a",), [0]),
    "hidden files": (
        ["a/1.png", "a/._1.png", "__MACOSX/a/2.png"],
        "train",
        ("a",),
        [0],
    ),
    "upper case": (["a/1.PNG", "a/2.JpEg"], "train", ("a",), [0, 0]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, tmp_path):
    files, split, classes, labels = LAYOUTS[name]
    root = write(tmp_path / "set", files)
    (root / "notes.txt").write_text("not an image")
    for place in (root, zipped(root, tmp_path / "set.zip")):
        source = Folder(str(place), split=split)
        assert source.classes == classes
        assert [source[i]["label"] for i in range(len(source))] == labels


def test_an_image_beside_the_classes_below_a_common_root(tmp_path):
    root = write(tmp_path / "set", ["a/1.png", "b/1.png", "logo.png"])
    source = Folder(str(zipped(root, tmp_path / "set.zip", rooted=True)))
    assert source.classes == ("a", "b") and len(source) == 2


def test_a_split_folder_can_be_given_itself(places):
    alone = Folder(str(places[0] / "test"), split="train")
    assert alone.classes == ("ant", "bird", "cat") and len(alone) == 12


def test_fingerprint_follows_contents(tmp_path):
    prints = []
    for names in (["a/1.png"], ["a/2.png"], ["b/1.png"], ["a/1.png", "a/2.png"]):
        root = write(tmp_path / f"set{len(prints)}", names)
        prints.append(Folder(str(root)).fingerprint())
    again = write(tmp_path / "elsewhere", ["a/1.png"])
    assert Folder(str(again)).fingerprint() == prints[0]
    (again / "a/1.png").write_bytes(picture(0) + b"more")
    prints.append(Folder(str(again)).fingerprint())
    assert len(set(prints)) == 5


def test_linked_folders_are_followed_once(tmp_path):
    root = write(tmp_path / "set", ["a/1.png"])
    write(tmp_path / "far", ["2.png"])
    (root / "b").symlink_to(tmp_path / "far")
    (root / "a" / "loop").symlink_to(root)
    source = Folder(str(root))
    assert source.classes == ("a", "b") and len(source) == 2


def test_bad_members_are_named_without_the_place(tmp_path):
    root = write(tmp_path / "set", ["train/a/1.png", "train/a/2.png"])
    (root / "train/a/1.png").write_bytes(b"")
    for place in (
        root,
        zipped(root, tmp_path / "s.zip"),
        tarred(root, tmp_path / "s.tar"),
    ):
        with pytest.raises(BadImage, match=r"train/a/1\.png: empty file") as caught:
            Folder(str(place))[0]
        assert str(tmp_path) not in str(caught.value)
    source = Folder(str(root))
    os.remove(root / "train/a/2.png")
    with pytest.raises(BadImage, match="No such file"):
        source[1]


def test_a_damaged_zip_member_is_a_bad_image(tmp_path):
    root = write(tmp_path / "set", ["a/1.png"])
    place = zipped(root, tmp_path / "set.zip")
    data = bytearray(place.read_bytes())
    start = data.index(b"\x89PNG") if b"\x89PNG" in data else len(data) // 3
    data[start + 20] ^= 0xFF
    place.write_bytes(data)
    with pytest.raises(BadImage):
        Folder(str(place))[0]


def test_a_tar_cut_short_is_refused_and_bad_if_already_open(tmp_path):
    root = write(tmp_path / "set", ["a/1.png"])
    place = tarred(root, tmp_path / "set.tar")
    with tarfile.open(place) as archive:
        end = archive.getmember("set/a/1.png").offset_data + 40
    opened = Folder(str(place))
    os.truncate(place, end)
    with pytest.raises(BadImage, match="ends within"):
        opened[0]
    with pytest.raises(DataError, match="cannot be read"):
        Folder(str(place))


def _zip_with(name: str):
    def make(folder: pathlib.Path) -> pathlib.Path:
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr("a/1.png", picture(0))
            archive.writestr(name, picture(1))
        return folder / "x.zip"

    return make


def _tar_with(name: str):
    def make(folder: pathlib.Path) -> pathlib.Path:
        with tarfile.open(folder / "x.tar", "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(picture(1))
            archive.addfile(member, io.BytesIO(picture(1)))
        return folder / "x.tar"

    return make


def _file(name: str, data: bytes):
    def make(folder: pathlib.Path) -> pathlib.Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


REFUSED = {
    "missing": (lambda folder: folder / "nope", "does not exist"),
    "empty folder": (lambda folder: folder, "holds no images"),
    "some file": (_file("x.jpg", picture(0)), "neither a folder nor"),
    "not a zip": (_file("x.zip", b"hello"), "cannot be read"),
    "empty zip": (_file("x.zip", b""), "cannot be read"),
    "not a tar": (_file("x.tar", b"hello" * 999), "cannot be read"),
    "tar.gz": (_file("x.tar.gz", b"\x1f\x8b"), "compressed tar"),
    "tgz": (_file("x.TGZ", b"\x1f\x8b"), "compressed tar"),
    "zip slip": (_zip_with("../evil.png"), "leaves it"),
    "zip slip inside": (_zip_with("a/../../evil.png"), "leaves it"),
    "zip slip backwards": (_zip_with("..\\evil.png"), "leaves it"),
    "zip, absolute": (_zip_with("/etc/evil.png"), "leaves it"),
    "zip, drive": (_zip_with("C:/evil.png"), "leaves it"),
    "tar slip": (_tar_with("a/../../evil.png"), "leaves it"),
    "tar, absolute": (_tar_with("/etc/evil.png"), "leaves it"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.fault(21)
def test_what_is_refused_gets_one_line(name, tmp_path):
    make, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as caught:
        Folder(str(make(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_wrong_split_names_those_there(places, tmp_path):
    for place in places:
        with pytest.raises(DataError, match="no split 'val'; it has train, test"):
            Folder(str(place), split="val")
    plain = write(tmp_path / "plain", ["a/1.png"])
    with pytest.raises(DataError, match="there are no split folders"):
        Folder(str(plain), split="test")


@pytest.mark.fault(21)
def test_links_in_archives_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("a/1.png")
        member.size = len(picture(0))
        archive.addfile(member, io.BytesIO(picture(0)))
        for kind, name in ((tarfile.SYMTYPE, "a/2.png"), (tarfile.LNKTYPE, "a/3.png")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
    assert open_files(str(tmp_path / "x.tar")).names() == ["a/1.png"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zip_archive:
        zip_archive.writestr("a/1.png", picture(0))
        link_info = zipfile.ZipInfo("a/2.png")
        link_info.external_attr = 0o120777 << 16
        zip_archive.writestr(link_info, "/etc/passwd")
    assert open_files(str(tmp_path / "x.zip")).names() == ["a/1.png"]


@pytest.mark.fault(21)
def test_members_of_absurd_size_are_bad_before_they_are_read(monkeypatch, places):
    monkeypatch.setattr("sgmae_jax.data.files.MAX_BYTES", 50)
    for place in places:
        with pytest.raises(BadImage, match="bytes is more than 50"):
            Folder(str(place))[0]


def test_cifar10(shared):
    place = shared / "data" / "cifar10.zip"
    if not place.is_file():
        pytest.skip("no cifar10.zip in ../shared/data")
    train = open_source("folder", path=str(place), split="train")
    test = open_source("folder", path=str(place), split="test[:500]")
    assert (len(train), len(test), len(train.classes)) == (50_000, 500, 10)
    assert train.classes == test.classes
    order = np.random.default_rng(0).permutation(50_000)[:500]
    shown = [train[int(index)] for index in order]
    assert {example["image"].shape for example in shown} == {(32, 32, 3)}
    assert {example["label"] for example in shown} == set(range(10))
    mean = np.mean([example["image"].mean((0, 1)) for example in shown], axis=0)
    # Means over all of it; 500 images come within a few steps of grey.
    assert np.abs(mean - [125.3, 123.0, 113.9]).max() < 6


def test_imagenet_sample_is_one_unlabelled_split(shared):
    place = shared / "data" / "imagenet_sample"
    if not place.is_dir():
        pytest.skip("no imagenet_sample in ../shared/data")
    source = Folder(str(place))
    assert len(source) == 63 and source.classes == ("unlabelled",)
    for index in range(0, 63, 9):
        example = source[index]
        assert example["label"] == -1 and min(example["image"].shape[:2]) > 100
