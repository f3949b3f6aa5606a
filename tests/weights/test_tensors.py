"""Files of tensors that are damaged, hostile, or not what they are named."""

import hashlib
import json
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from sgmae_jax.weights import WeightsError, read_weights
from sgmae_jax.weights.tensors import read_tensors
from tests.weights.networks import config_of, export, random_parts
from tests.weights.torchfiles import Name, archive, program, torch_file

TREE = {"w": np.float32([[1, 2], [3, 4]]), "b": np.float16([5, 6])}
SOUND = safetensors.numpy.save(TREE)
HEADER = struct.unpack("<Q", SOUND[:8])[0]


def refused(path, words=".", **options):
    with pytest.raises(WeightsError, match=words) as caught:
        read_tensors(path, **options)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def with_header(header, data=SOUND[8 + HEADER :]):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "payload",
    [
        with_header({"w": entry([6], 0, 24)}),
        with_header({"w": entry([3], 0, 16)}),
        with_header({"w": entry([2, 2], 4, 20)}),
        with_header({"w": entry([4], 0, 16), "v": entry([4], 0, 16)}),
        with_header({"w": entry([1 << 62, 1 << 62], 0, 20)}),
        with_header({"w": entry([-1], 0, 20)}),
        with_header({"w": entry([5], 0, 1 << 60)}),
        with_header({"w": entry([5], 20, 0)}),
        with_header({"w": entry([10], 0, 20, "F8_E4M3")}),
        with_header({"w": entry([20], 0, 20, "F8_E4M3")}),
        with_header({"w": entry([5], 0, 20, "PICKLE")}),
        with_header({"w": [1]}),
        with_header(b"{" * 50_000),
        with_header(b'{"w": '),
        struct.pack("<Q", 1 << 62) + SOUND[8:],
        struct.pack("<Q", 0) + SOUND[8:],
        SOUND + b"\0",
        SOUND + b"cos\nsystem\n(S'touch executed'\ntR.",
        b"",
        b"{}",
        b"\x93NUMPY\x01\x00",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
    ids=range(22),
)
@pytest.mark.fault(21)
def test_a_header_that_lies_is_refused(payload, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(payload)
    refused(path)
    refused(path, allow_pickle=True)


def test_every_flip_in_the_header_and_every_cut_is_found(tmp_path):
    path = tmp_path / "w.safetensors"
    known = {name: array.astype(np.float32) for name, array in TREE.items()}
    unseen = 0
    for place in range(8 + HEADER):
        for bits in (0xFF, 1 << (place % 8)):
            damaged = bytearray(SOUND)
            damaged[place] ^= bits
            path.write_bytes(bytes(damaged))
            try:
                found = read_tensors(path).arrays
            except WeightsError:
                continue
            # A name is only text: it can turn into another, whose leaf is then missed;
            # a type into one of its size.
            unseen += found.keys() == known.keys() and all(
                np.array_equal(found[name], known[name]) for name in known
            )
            assert {a.size for a in found.values()} == {4, 2}
    print(f"{2 * (8 + HEADER)} flips, {unseen} of them in white space")
    for cut in range(len(SOUND)):
        path.write_bytes(SOUND[:cut])
        refused(path)


@pytest.mark.parametrize(
    "name",
    ["a\nerror: b", "\x1b[2Jw", "\x00", "w" * 100_000],
    ids=["line", "escape", "zero", "long"],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.fault(21)
def test_names_cannot_write_lines_of_their_own(name, suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    tensors = {name: TREE["w"]}
    sound = torch_file(tensors) if suffix == "pth" else safetensors.numpy.save(tensors)
    path.write_bytes(sound)
    with pytest.raises(WeightsError) as caught:
        read_weights(path, allow_pickle=True)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1100
    path.write_bytes(archive({"data.pkl": program(Name("os", f"{name}x"))}))
    with pytest.raises(WeightsError) as caught:
        read_weights(path, allow_pickle=True)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1100


@pytest.mark.parametrize("form", ["ours", "timm", "huggingface"])
def test_a_flipped_bit_is_found_by_the_card_or_a_pinned_hash(form, tmp_path):
    config = config_of()
    folder = export(config, random_parts(config), tmp_path, form)
    for file in sorted(folder.iterdir()):
        sound = file.read_bytes()
        damaged = bytearray(sound)
        damaged[-len(sound) // 3] ^= 4
        file.write_bytes(bytes(damaged))
        with pytest.raises(WeightsError, match=r"sha256|damaged"):
            read_weights(folder)
        file.write_bytes(sound)
    assert read_weights(folder)


def test_a_hash_is_checked_before_anything_is_parsed(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(SOUND)
    digest = hashlib.sha256(SOUND).hexdigest()
    assert read_tensors(path, sha256=digest.upper()).files == {path.name: digest}
    path.write_bytes(b"no tensors at all")
    refused(path, "its SHA-256 is", sha256=digest)


def test_a_file_is_what_its_content_says(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(torch_file(TREE))
    refused(path, "named .safetensors, but a PyTorch file", allow_pickle=True)
    path = tmp_path / "model.pth"
    path.write_bytes(torch_file(TREE))
    refused(path, r"config\.weights\.allow_pickle=True")
    assert read_tensors(path, allow_pickle=True).arrays["w"].tolist() == [
        [1, 2],
        [3, 4],
    ]
    path.write_bytes(SOUND)
    assert read_tensors(path).arrays["b"].dtype == np.float32
    path.write_bytes(pickle.dumps({"w": 1}))
    refused(path, r"before 1\.6", allow_pickle=True)
    refused(tmp_path / "absent.pth", "No such file")
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "has no model.safetensors")


@pytest.mark.parametrize(
    "content",
    [3, [1, 2], {}, {"model": {}}, {"model": {"w": 1}}, {"w": TREE["w"], "epoch": 3}],
    ids=str,
)
def test_a_pytorch_file_without_a_dict_of_tensors(content, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(torch_file(content))
    refused(path, "no dict of tensors", allow_pickle=True)


def sharded(folder, weight_map):
    for name, part in (("a", {"w": TREE["w"]}), ("b", {"b": TREE["b"]})):
        safetensors.numpy.save_file(part, folder / f"{name}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


def test_a_file_in_parts_is_read(tmp_path):
    sharded(tmp_path, {"w": "a.safetensors", "b": "b.safetensors"})
    found = read_tensors(tmp_path)
    assert found.arrays.keys() == {"w", "b"} and len(found.files) == 2
    refused(tmp_path, "names one file, the folder has 2", sha256="0" * 64)


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"w": "../a.safetensors"}, "outside of its folder"),
        ({"w": "/etc/passwd"}, "outside of its folder"),
        ({"w": ".."}, "outside of its folder"),
        ({}, "outside of its folder"),
        ({"w": 3}, "damaged"),
        ([1], "damaged"),
        ({"w": "c.safetensors"}, "No such file"),
        (
            {"w": "a.safetensors", "b": "a.safetensors"},
            "b is in the index or the files",
        ),
        (
            {"b": "b.safetensors", "w": "b.safetensors"},
            "w is in the index or the files",
        ),
    ],
    ids=str,
)
@pytest.mark.fault(21)
def test_an_index_that_lies_is_refused(weight_map, words, tmp_path):
    sharded(tmp_path, weight_map)
    refused(tmp_path, words)
