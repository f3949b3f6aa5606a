"""Tensors by name, from safetensors or, where that is allowed, PyTorch files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from sgmae_jax.weights.errors import WeightsError
from sgmae_jax.weights.pickled import read_pickled

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
# Beside a timm folder's weights, by the official names: timm has no place for it.
DECODER = "decoder.safetensors"

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}
# Where training programs keep the dict of tensors in a file of more.
_INSIDE = ("model", "state_dict", "module")


class Tensors(NamedTuple):
    """What `read_tensors` returns.

    Attributes:
        arrays: by name; what was float16 or bfloat16 is float32.
        files: name of each file that was read, and its SHA-256.
    """

    arrays: dict[str, np.ndarray]
    files: dict[str, str]


def read_tensors(
    path: str | os.PathLike, *, allow_pickle: bool = False, sha256: str = ""
) -> Tensors:
    """All tensors of a file, or of a folder as Hugging Face and timm write them.

    What a file is, its content says, not its name alone. It is read once: what was
    hashed is what is parsed.

    Args:
        path: a `.safetensors` or PyTorch file, or a folder with `model.safetensors`,
            `model.safetensors.index.json` and its parts, or `pytorch_model.bin`.
        allow_pickle: read PyTorch files too, by `read_pickled`.
        sha256: what the file's must be, in hexadecimal; empty: anything.

    Raises:
        WeightsError: not there, damaged, not allowed, not finite or of another hash.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return _read([path], allow_pickle, sha256)
        if (path / WEIGHTS).is_file():
            names = [WEIGHTS, DECODER] if (path / DECODER).is_file() else [WEIGHTS]
            return _read([path / name for name in names], allow_pickle, sha256)
        if (path / INDEX).is_file():
            return _read_parts(path, allow_pickle, sha256)
        if (path / PICKLED).is_file():
            return _read([path / PICKLED], allow_pickle, sha256)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    raise WeightsError(f"{path}: has no {WEIGHTS}, {INDEX} or {PICKLED}")


def _read(files: list[Path], allow_pickle: bool, sha256: str) -> Tensors:
    arrays: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    if sha256 and len(files) > 1:
        raise WeightsError(
            f"{files[0].parent}: weights.sha256 names one file, the folder has "
            f"{len(files)}; name the file"
        )
    for file in files:
        payload = file.read_bytes()
        hashes[file.name] = hashlib.sha256(payload).hexdigest()
        if sha256 and hashes[file.name] != sha256.lower():
            raise WeightsError(f"{file}: its SHA-256 is {hashes[file.name]}")
        try:
            found = _parse(payload, file.suffix == ".safetensors", allow_pickle)
            if not all(name.isprintable() for name in found):
                raise WeightsError("has names that cannot be printed")
            if again := arrays.keys() & found.keys():
                raise WeightsError(f"{min(again)} is in another file too")
            arrays |= {name: _plain(name, array) for name, array in found.items()}
        except WeightsError as error:
            raise WeightsError(f"{file}: {error}") from None
    return Tensors(arrays, hashes)


def _read_parts(folder: Path, allow_pickle: bool, sha256: str) -> Tensors:
    where = f"{folder / INDEX}"
    try:
        places = dict(json.loads((folder / INDEX).read_bytes())["weight_map"])
        parts = sorted(set(places.values()))
        safe = bool(parts) and all(
            Path(part).name == part and part.endswith(".safetensors") for part in parts
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{where}: damaged: {error!r}") from None
    if not safe:
        raise WeightsError(f"{where}: names no parts, or files outside of its folder")
    found = _read([folder / part for part in parts], allow_pickle, sha256)
    if wrong := sorted(places.keys() ^ found.arrays.keys()):
        raise WeightsError(f"{where}: {wrong[0]} is in the index or the files alone")
    return found


def _parse(payload: bytes, named_safe: bool, allow_pickle: bool) -> dict[str, Any]:
    if payload[8:9] == b"{":
        return _parse_safetensors(payload)
    if payload[:4] != b"PK\x03\x04":
        if payload[:1] == b"\x80":
            raise WeightsError(
                "a pickle outside of a zip, as PyTorch wrote before 1.6; load and save "
                "it with a newer one"
            )
        raise WeightsError("neither safetensors nor a PyTorch file, or damaged")
    if named_safe:
        raise WeightsError("named .safetensors, but a PyTorch file by its content")
    if not allow_pickle:
        raise WeightsError(
            "a PyTorch file, which is a pickle; config.weights.allow_pickle=True reads "
            "it, by a reader that executes nothing"
        )
    arrays = _dict_of_tensors(read_pickled(payload))
    # Views of one storage cost nothing in a file, and all their size once converted.
    if sum(array.nbytes for array in arrays.values()) > 2 * len(payload):
        raise WeightsError("its tensors share their memory many times over")
    return arrays


def _parse_safetensors(payload: bytes) -> dict[str, np.ndarray]:
    try:
        # Checks the header against the file: no hole, no overlap, nothing behind.
        entries = safetensors.deserialize(payload)
    except Exception as error:  # the library's own, and what its bindings raise
        words = str(error).splitlines() or [""]
        raise WeightsError(f"damaged safetensors: {words[0]}") from None
    arrays = {}
    for name, entry in entries:
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise WeightsError(f"{name} is of type {entry['dtype']}, which is not read")
        arrays[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return arrays


def _dict_of_tensors(content: Any) -> dict[str, np.ndarray]:
    """The dict of tensors in what a training program saved, without "module."."""

    def tensors(found: Any) -> bool:
        good = isinstance(found, dict) and len(found) > 0
        return good and all(isinstance(value, np.ndarray) for value in found.values())

    if isinstance(content, dict) and not tensors(content):
        inside = [content[key] for key in _INSIDE if key in content]
        content = inside[0] if inside else content
    if not tensors(content) or not all(isinstance(name, str) for name in content):
        raise WeightsError(
            f"holds no dict of tensors, nor one under {' or '.join(_INSIDE)}"
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): content[name] for name in content}
    return dict(content)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Half precision in float32; numbers that are none are refused."""
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
        return array
    if array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise WeightsError(f"{name} has values that are not finite")
    return array
