"""PyTorch's zip files, read without PyTorch and without executing anything.

The pickle inside is a program for a stack machine. The machine here has the
instructions that put tensors into containers and no others; the functions it calls are
three of its own, whatever names the pickle gives.

Reference: torch/serialization.py and torch/_utils.py, for what is written.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from sgmae_jax.weights.errors import WeightsError

_MAX_AXES = 8
_STORAGES = {
    "torch DoubleStorage": np.dtype("<f8"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("u1"),
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_FUNCTIONS = (_DICT, _TENSOR, _PARAMETER)


class _Global(NamedTuple):
    """A name that the pickle may speak of; nothing is behind it."""

    name: str


class _Storage(NamedTuple):
    """Bytes of the file that hold values of one type."""

    content: np.ndarray
    dtype: np.dtype


def read_pickled(payload: bytes) -> Any:
    """What a PyTorch zip file holds: containers and numbers, tensors as arrays.

    Args:
        payload: the whole file.

    Returns:
        Dicts, lists, tuples, strings and numbers; for each tensor a NumPy array, which
        may be a view of another's memory, of type bfloat16 too.

    Raises:
        WeightsError: damaged, or with anything in it that is not a tensor or a plain
            container. Nothing has been executed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            program, storage = _open(archive, len(payload))
            return _run(program, storage)
    except WeightsError:
        raise
    # What hostile bytes raise in two parsers is not to be foreseen: all of it means no.
    except Exception as error:
        words = str(error).splitlines() or [""]
        raise WeightsError(f"damaged: {type(error).__name__}: {words[0]}") from None


def _open(
    archive: zipfile.ZipFile, size: int
) -> tuple[bytes, Callable[[str], np.ndarray]]:
    """The pickle, and a way to a storage's bytes by its key."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        # The library shortens a name at a zero byte.
        plain = name == info.orig_filename and "\\" not in name
        if not plain or {"", ".", ".."} & set(name.split("/")):
            raise WeightsError(f"a member has the name {info.orig_filename!r}")
        if name in members:
            raise WeightsError(f"two members have the name {name!r}")
        if info.compress_type or info.compress_size != info.file_size:
            raise WeightsError(f"member {name!r} is compressed: no tensor file's is")
        members[name] = info
    if sum(info.file_size for info in members.values()) > size:
        raise WeightsError("its members are larger than the file: they overlap")
    roots = {name.split("/")[0] for name in members}
    root = roots.pop() if len(roots) == 1 else ""
    if f"{root}/data.pkl" not in members:
        raise WeightsError("a zip, but not one of PyTorch's tensor files")
    order = members.get(f"{root}/byteorder")
    if order is not None and archive.read(order) != b"little":
        raise WeightsError("its numbers are not in little-endian order")
    cache: dict[str, np.ndarray] = {}

    def storage(key: str) -> np.ndarray:
        if key not in cache:
            info = members.get(f"{root}/data/{key}")
            if info is None:
                raise WeightsError(f"the file lacks the storage {key!r}")
            # Reading checks the CRC.
            cache[key] = np.frombuffer(archive.read(info), np.uint8)
        return cache[key]

    return archive.read(members[f"{root}/data.pkl"]), storage


def _run(program: bytes, storage: Callable[[str], np.ndarray]) -> Any:
    """Executes the pickle's instructions; those that are not here are refused."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    end: int | None = -1

    def above_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    value: Any
    for opcode, value, place in pickletools.genops(program):
        match opcode.name:
            case "PROTO":
                pass
            case "GLOBAL":
                stack.append(_allowed(value))
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True}.get(opcode.name, False))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                _extend(stack, [stack.pop()])
            case "APPENDS":
                items = above_mark()
                _extend(stack, items)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                _update(stack, [key, item])
            case "SETITEMS":
                items = above_mark()
                _update(stack, items)
            case "BINPERSID":
                stack.append(_storage(stack.pop(), storage))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                # A state dict's `_metadata`: version numbers of PyTorch's modules.
                stack.pop()
                if type(stack[-1]) is not OrderedDict:
                    raise WeightsError("it sets the state of what is no OrderedDict")
            case "STOP":
                end = place
            case name:
                raise WeightsError(f"the pickle's instruction {name} is not allowed")
    if end != len(program) - 1 or len(stack) != 1:
        raise WeightsError("damaged: its pickle ends where it should not")
    return stack[0]


def _allowed(name: str) -> _Global:
    if name not in _FUNCTIONS and name not in _STORAGES:
        raise WeightsError(
            f"{name.replace(' ', '.')} is not allowed, only tensors and plain "
            "containers are: save the dict of tensors ('model', 'state_dict') alone"
        )
    return _Global(name)


def _extend(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise WeightsError("it appends to what is no list")
    stack[-1].extend(items)


def _update(stack: list[Any], items: list[Any]) -> None:
    keys = items[::2]
    if type(stack[-1]) not in (dict, OrderedDict) or len(items) % 2:
        raise WeightsError("it sets an item of what is no dict")
    if not all(isinstance(key, str | int | float | None) for key in keys):
        raise WeightsError("a key of a dict is neither a string nor a number")
    stack[-1].update(zip(keys, items[1::2], strict=True))


def _storage(identity: Any, storage: Callable[[str], np.ndarray]) -> _Storage:
    kind, form, key, _, count = identity
    dtype = _STORAGES.get(form.name) if isinstance(form, _Global) else None
    if kind != "storage" or dtype is None or not isinstance(key, str):
        raise WeightsError("a storage is not described as PyTorch does")
    content = storage(key)
    if not _natural(count) or count * dtype.itemsize != len(content):
        raise WeightsError(
            f"storage {key!r} has {len(content)} bytes, and is said to hold {count} "
            f"values of {dtype}"
        )
    return _Storage(content, dtype)


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise WeightsError("it calls what is no function")
    if function.name == _DICT and not arguments:
        return OrderedDict()
    if function.name == _TENSOR:
        return _tensor(*arguments[:4])
    if function.name == _PARAMETER and isinstance(arguments[0], np.ndarray):
        return arguments[0]
    raise WeightsError(f"{function.name.replace(' ', '.')} is not called as by PyTorch")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """A view of a storage that neither leaves it nor reads a place twice."""
    if not isinstance(storage, _Storage) or not _natural(offset):
        raise WeightsError("a tensor is not described as PyTorch does")
    for sizes in (shape, strides):
        good = isinstance(sizes, tuple) and all(map(_natural, sizes))
        if not good or len(sizes) != len(shape) or len(sizes) > _MAX_AXES:
            raise WeightsError("a tensor's shape or strides are no tuple of sizes")
    content, dtype = storage
    if 0 in shape:
        return np.zeros(shape, dtype)
    reach = 0
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and stride <= reach:
            raise WeightsError("a tensor reads a place of its storage twice")
        reach += (size - 1) * stride
    step = dtype.itemsize
    if (offset + reach + 1) * step > len(content):
        raise WeightsError("a tensor reads outside of its storage")
    return np.ndarray(
        shape, dtype, content, offset * step, [stride * step for stride in strides]
    )


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0
