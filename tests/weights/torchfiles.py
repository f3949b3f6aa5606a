"""PyTorch's zip files made without PyTorch, sound and otherwise."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

_STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}


class Name(NamedTuple):
    """A global."""

    module: str
    name: str


class Call(NamedTuple):
    """What `__reduce__` gives: a function, as anything here, and its arguments."""

    function: Any
    arguments: tuple


class Persistent(NamedTuple):
    """An object outside of the pickle, by what identifies it."""

    identity: tuple


class Raw(NamedTuple):
    """Instructions as they are."""

    code: bytes


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
ORDERED = Call(Name("collections", "OrderedDict"), ())


def storage(key: str, numel: int, dtype: str = "float32") -> Persistent:
    """A storage of the file."""
    return Persistent(("storage", Name("torch", _STORAGES[dtype]), key, "cpu", numel))


def tensor(where: Persistent, offset: int, shape: tuple, strides: tuple) -> Call:
    """A tensor as torch.save describes it."""
    return Call(REBUILD, (where, offset, shape, strides, False, ORDERED))


def instructions(value: Any) -> bytes:
    """The instructions that put a value on the stack."""
    match value:
        case Raw(code):
            return code
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return instructions(function) + instructions(arguments) + pickle.REDUCE
        case Persistent(identity):
            return instructions(identity) + pickle.BINPERSID
        case None | bool():
            codes = {None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}
            return codes[value]
        case int() if 0 <= value < 2**31:
            return pickle.BININT + struct.pack("<i", value)
        case int():
            return pickle.LONG1 + b"\x08" + struct.pack("<q", value)
        case float():
            return pickle.BINFLOAT + struct.pack(">d", value)
        case str():
            text = value.encode()
            return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
        case tuple():
            return pickle.MARK + b"".join(map(instructions, value)) + pickle.TUPLE
        case list():
            items = b"".join(map(instructions, value))
            return pickle.EMPTY_LIST + pickle.MARK + items + pickle.APPENDS
        case dict():
            pairs = (x for pair in value.items() for x in pair)
            items = b"".join(map(instructions, pairs))
            return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    raise TypeError(type(value))


def program(value: Any) -> bytes:
    """A whole pickle."""
    return pickle.PROTO + b"\x02" + instructions(value) + pickle.STOP


def archive(
    members: dict[str, bytes], *, root: str = "archive", compressed: bool = False
) -> bytes:
    """A zip of members; their names are taken as they are."""
    file = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", how) as out:
        for name, content in members.items():
            out.writestr(f"{root}/{name}" if root else name, content)
    return file.getvalue()


def torch_file(content: Any, **options: Any) -> bytes:
    """What torch.save would write of dicts, lists, numbers and NumPy arrays."""
    members: dict[str, bytes] = {}

    def described(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: described(item) for key, item in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        key = str(len(members))
        members[f"data/{key}"] = value.tobytes()
        strides = np.empty(value.shape, value.dtype).strides
        steps = tuple(stride // value.itemsize for stride in strides)
        where = storage(key, value.size, str(value.dtype))
        return tensor(where, 0, value.shape, steps)

    pickled = program(described(content))
    return archive(
        {"data.pkl": pickled, "byteorder": b"little", **members, "version": b"3\n"},
        **options,
    )
