"""The reader of PyTorch files: what it takes and refuses; that it executes nothing."""

import io
import os
import pathlib
import pickle
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sgmae_jax.weights import WeightsError
from sgmae_jax.weights.pickled import read_pickled
from tests.weights.torchfiles import (
    ORDERED,
    Call,
    Name,
    Persistent,
    Raw,
    archive,
    instructions,
    program,
    storage,
    tensor,
    torch_file,
)

SIX = np.arange(6, dtype=np.float32)


def of(value, **members):
    """A file with a pickle and storage 0 of six numbers."""
    return archive({"data.pkl": program(value), "data/0": SIX.tobytes(), **members})


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.sampled_from([np.float64, np.float32, np.float16, np.int64]).flatmap(
            lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0))
        ),
        max_size=4,
    )
)
@settings(max_examples=50, deadline=None)
def test_tensors_come_back_bit_for_bit(tree):
    found = read_pickled(torch_file({"model": tree, "epoch": 3, "loss": 0.5}))
    assert found["epoch"] == 3 and found["loss"] == 0.5
    assert found["model"].keys() == tree.keys()
    for name, array in tree.items():
        assert found["model"][name].dtype == array.dtype
        assert found["model"][name].shape == array.shape
        assert found["model"][name].tobytes() == array.tobytes()


def test_half_precision_and_views():
    half = np.float32([1.5, -2, 3e38]).astype(ml_dtypes.bfloat16)
    found = read_pickled(torch_file({"w": half}))["w"]
    assert found.dtype == ml_dtypes.bfloat16 and (found == half).all()
    where = storage("0", 6)
    found = read_pickled(
        of([tensor(where, 0, (3, 2), (1, 3)), tensor(where, 4, (2,), (1,))])
    )
    np.testing.assert_array_equal(found[0], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(found[1], SIX[4:])
    assert read_pickled(of(tensor(where, 0, (0, 3), (3, 1)))).shape == (0, 3)


def test_what_torch_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    module[0].half()
    state = module.state_dict()  # an OrderedDict with a state of its own
    whole = {
        "model": state,
        "optimizer": torch.optim.AdamW(module.parameters()).state_dict(),
        "parameter": torch.nn.Parameter(torch.arange(4.0)),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "brain": torch.arange(3).to(torch.bfloat16),
    }
    torch.save(whole, tmp_path / "file.pth")
    found = read_pickled((tmp_path / "file.pth").read_bytes())
    for name, value in state.items():
        np.testing.assert_array_equal(found["model"][name], value.numpy())
    for name in ("parameter", "turned"):
        np.testing.assert_array_equal(found[name], whole[name].detach().numpy())
    assert found["brain"].astype(int).tolist() == [0, 1, 2]
    assert found["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


# Each would leave a file named `executed` behind, if anything of it were executed.
COMMAND = "touch executed"
HOSTILE = {
    "system": Call(Name("posix", "system"), (COMMAND,)),
    "os": Call(Name("os", "system"), (COMMAND,)),
    "eval": Call(Name("builtins", "eval"), ("open('executed', 'w')",)),
    "exec": Call(Name("__builtin__", "exec"), ("open('executed', 'w')",)),
    "open": Call(Name("io", "open"), ("executed", "w")),
    "path": Call(Name("pathlib", "Path.touch"), ("executed",)),
    "hidden": {"model": {"w": 1.0}, "more": [Call(Name("os", "system"), (COMMAND,))]},
    "key": Raw(b"}" + instructions(Call(Name("os", "system"), (COMMAND,))) + b"K\x01s"),
    "hooks": Call(
        Name("torch._utils", "_rebuild_tensor_v2"),
        (storage("0", 6), 0, (6,), (1,), False, Call(Name("os", "system"), (COMMAND,))),
    ),
    "storage": Persistent(
        ("storage", Call(Name("os", "system"), (COMMAND,)), "0", "cpu", 6)
    ),
    "loader": Call(Name("torch.serialization", "load"), ("other.pth",)),
    "hub": Call(Name("torch.hub", "load"), ("somebody/code", "model")),
    "getattr": Call(Name("builtins", "getattr"), (Name("os", "system"), "__call__")),
    "inst": Raw(b"(X\x0e\x00\x00\x00touch executedios\nsystem\n"),
    "obj": Raw(b"(cos\nsystem\nX\x0e\x00\x00\x00touch executedo"),
    "newobj": Raw(b"csubprocess\nPopen\n(X\x0e\x00\x00\x00touch executedt\x81"),
    "stack global": Raw(b"\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R"),
    "extension": Raw(b"\x82\x01)R"),
    "state": Raw(instructions(ORDERED) + instructions({"__class__": 1}) + b"bb"),
}


class Reduced:
    """What the standard library itself makes of a hostile object."""

    def __reduce__(self):
        return os.system, (COMMAND,)


def refused(payload, words="."):
    with pytest.raises(WeightsError, match=words) as caught:
        read_pickled(payload)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.fault(21)
def test_nothing_is_executed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(of(HOSTILE[name]))
    assert not os.listdir(tmp_path)


@pytest.mark.fault(21)
def test_the_marker_would_have_been_left(tmp_path, monkeypatch):
    """The test above can fail: the same pickles are harmful to `pickle`."""
    monkeypatch.chdir(tmp_path)
    for name in ("system", "exec", "inst", "obj", "stack global"):
        pickle.loads(program(HOSTILE[name]))
        pathlib.Path("executed").unlink()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.fault(21)
def test_what_pickle_makes_of_reduce_is_refused(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"model": {"w": Reduced()}}, protocol)
    refused(archive({"data.pkl": content}))
    assert not os.listdir(tmp_path)


def test_a_refused_name_is_told_with_the_way_out():
    args = Call(Name("argparse", "Namespace"), ())
    refused(
        of({"model": {}, "args": args}), r"argparse\.Namespace is not allowed.*alone"
    )


WHERE = storage("0", 6)
BAD = {
    "outside": (tensor(WHERE, 1, (6,), (1,)), "outside of its storage"),
    "far outside": (tensor(WHERE, 2**62, (1,), (1,)), "outside of its storage"),
    "before": (tensor(WHERE, -1, (2,), (1,)), "not described"),
    "backwards": (tensor(WHERE, 5, (6,), (-1,)), "no tuple of sizes"),
    "stride 0": (tensor(WHERE, 0, (2**40,), (0,)), "twice"),
    "overlap": (tensor(WHERE, 0, (2, 3), (1, 1)), "twice"),
    "many": (tensor(WHERE, 0, (2**62, 2**62), (1, 1)), "twice"),
    "huge": (tensor(WHERE, 0, (2, 3), (2**62, 1)), "outside"),
    "ranks": (tensor(WHERE, 0, (2, 3), (1,)), "no tuple of sizes"),
    "axes": (tensor(WHERE, 0, (1,) * 9, (1,) * 9), "no tuple of sizes"),
    "float": (tensor(WHERE, 0, (2.0,), (1,)), "no tuple of sizes"),
    "bool": (tensor(WHERE, True, (2,), (1,)), "not described"),
    "size": (tensor(storage("0", 7), 0, (6,), (1,)), "24 bytes.*hold 7"),
    "type": (tensor(storage("0", 6, "float64"), 0, (6,), (1,)), "hold 6.*float64"),
    "absent": (tensor(storage("1", 6), 0, (6,), (1,)), "lacks the storage '1'"),
    "climb": (tensor(storage("../../x", 6), 0, (6,), (1,)), "lacks the storage"),
    "no storage": (tensor(SIX.tolist(), 0, (6,), (1,)), "not described"),
    "list": (Raw(b"]K\x01K\x02s"), "no dict"),
    "pop": (Raw(b"00000"), "not allowed"),
    "memo": (Raw(b"h\x07"), "damaged: KeyError"),
    "empty": (Raw(b""), "ends where"),
    "two": (Raw(b"NN"), "ends where"),
    "recursion": (Raw(b"(" * 100_000 + b"t" * 100_000), "."),
    "long": (Raw(b"\x8a\xff" + b"\x7f" * 255), "."),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.fault(21)
def test_tensors_that_lie_are_refused(name):
    value, words = BAD[name]
    if name in ("recursion", "long"):  # allowed to exist; no tensors
        assert read_pickled(of(value)) is not None
    else:
        refused(of(value), words)


def test_what_is_behind_the_pickle_is_refused():
    refused(archive({"data.pkl": program({}) + b"cos\nsystem\n"}), "ends where")


def rezipped(change):
    """A sound file with its members written again by `change(name) -> name`."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two equal names
        with zipfile.ZipFile(file, "w") as out:
            for name in ("data.pkl", "data/0", "data/1"):
                content = program({}) if name == "data.pkl" else SIX.tobytes()
                out.writestr(change(f"a/{name}"), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (rezipped(lambda name: name.replace("data/1", "../../evil")), "the name"),
        (rezipped(lambda name: name.replace("a/data/1", "/etc/evil")), "the name"),
        (rezipped(lambda name: name.replace("/1", "\\..\\x")), "the name"),
        (rezipped(lambda name: name.replace("/1", "/./x")), "the name"),
        (rezipped(lambda name: name.replace("/1", "/0")), "two members"),
        (rezipped(lambda name: name.replace("a/data/1", "b/1")), "not one of PyTorch"),
        (archive({"other.txt": b"x"}), "not one of PyTorch"),
        (torch_file({"w": SIX}, compressed=True), "compressed"),
        (of({}, byteorder=b"big"), "little-endian"),
        (b"", "damaged"),
        (b"PK\x03\x04", "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
@pytest.mark.fault(21)
def test_archives_that_are_none_of_pytorchs(payload, words):
    refused(payload, words)


@pytest.mark.fault(21)
def test_a_member_larger_than_the_file_is_refused():
    sound = bytearray(torch_file({"w": SIX}))
    place = sound.rindex(b"PK\x01\x02", 0, sound.rindex(b"data/0"))
    for field in (20, 24):  # both sizes in the central directory
        sound[place + field : place + field + 4] = b"\xff\xff\xff\x7f"
    refused(bytes(sound), "larger than the file")


def same(payload, tree):
    """Whether a file is read as a tree of arrays, or refused."""
    try:
        found = read_pickled(payload)
    except WeightsError as error:
        assert "\n" not in str(error)
        return False
    assert found.keys() == tree.keys()
    for name, array in tree.items():
        np.testing.assert_array_equal(found[name], array)
    return True


TREE = {"w": np.float32([[1, 2], [3, 4]]), "b": np.float16([5])}


def test_every_flipped_byte_and_every_cut_is_found():
    sound = torch_file(TREE)
    assert same(sound, TREE)
    unseen = 0
    for place in range(len(sound)):
        for bits in (0xFF, 1 << (place % 8)):
            damaged = bytearray(sound)
            damaged[place] ^= bits
            unseen += same(bytes(damaged), TREE)
    print(f"{2 * len(sound)} flips, {unseen} of them where nothing is said")
    assert unseen < len(sound)  # of the zip: dates, attributes, what no one reads
    assert not any(same(sound[:cut], TREE) for cut in range(len(sound)))
