"""A trained encoder as `encoder.safetensors` with a JSON card beside it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

TENSORS = "encoder.safetensors"
CARD = "card.json"
_REQUIRED = ("method", "config", "data_fingerprint", "step", "scores")
_OURS = ("format", "parameters", "tensors", "sha256")
_FORMAT = 1
# Unpublished weights on a shared machine are for owner and group.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


class CorruptExport(Exception):
    """The exported files are damaged or do not belong together."""


def export_encoder(
    params: Mapping[str, Any], card: Mapping[str, Any], directory: str | os.PathLike
) -> Path:
    """Writes the encoder and its card; readers never see half a file.

    Tensor names are the path in the tree joined by dots, for example
    `blocks.attn.qkv.kernel`. The card gains `format`, `parameters` (their number),
    `tensors` (shape and dtype by name) and `sha256` (of the tensor file, and of the
    card without this entry).

    Args:
        params: nested dict of arrays.
        card: what a reader must know: `method`, `config`, `data_fingerprint`, `step`,
            `scores`; anything else that JSON can hold.
        directory: made if need be; an earlier export in it is replaced.

    Returns:
        The directory.

    Raises:
        ValueError: the card lacks an entry, names one of ours or does not fit JSON,
            a name in the tree holds a dot, or a dtype is not NumPy's own.
    """
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise ValueError(f"the card lacks {', '.join(missing)}")
    if clash := [key for key in _OURS if key in card]:
        raise ValueError(f"the card's {', '.join(clash)} are written by the export")
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(dict(params)).items():
        if any("." in part for part in path):
            raise ValueError(f"a name in the tree holds a dot: {path}")
        name, array = ".".join(path), np.asarray(leaf)
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"{name} is {array.dtype}, which plain NumPy cannot read back: "
                "export float32"
            )
        # safetensors writes the buffer as it lies: it must be in C order.
        tensors[name] = np.ascontiguousarray(array).reshape(array.shape)
    if not tensors:
        raise ValueError("there are no parameters to export")
    payload = safetensors.numpy.save(tensors)
    whole = {
        **card,
        "format": _FORMAT,
        "parameters": sum(tensor.size for tensor in tensors.values()),
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}
            for name, tensor in tensors.items()
        },
    }
    try:
        text = _canonical(whole)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card does not fit JSON: {error}") from error
    # What JSON makes of it (tuples become lists) is what a reader will hash.
    whole = json.loads(text)
    whole["sha256"] = {TENSORS: _sha256(payload), CARD: _sha256(text.encode())}

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=_DIRECTORY_MODE)
    # Two renames cannot be one: a crash between them leaves new tensors beside an
    # old card, which the digest tells.
    _write(directory / TENSORS, payload)
    _write(directory / CARD, (json.dumps(whole, indent=2) + "\n").encode())
    return directory


def load_encoder(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads an export back, bit for bit, and proves that it is undamaged.

    Args:
        directory: where `export_encoder` wrote.

    Returns:
        The nested dict of NumPy arrays, and the card.

    Raises:
        FileNotFoundError: one of the two files is not there.
        CorruptExport: a file is damaged, or the two do not belong together.
    """
    directory = Path(directory)
    try:
        card = json.loads((directory / CARD).read_bytes())
        digests = card.pop("sha256")
        expected = (digests[TENSORS], digests[CARD])
        form = card["format"]
        text = _canonical(card)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptExport(f"{CARD} is damaged: {error!r}") from error
    payload = (directory / TENSORS).read_bytes()
    found = (_sha256(payload), _sha256(text.encode()))
    for name, want, have in zip((TENSORS, CARD), expected, found, strict=True):
        if want != have:
            raise CorruptExport(f"{name}: sha256 is {have}, the card says {want}")
    if form != _FORMAT:
        raise CorruptExport(f"{CARD} has format {form}, this program reads {_FORMAT}")
    try:
        tensors = safetensors.numpy.load(payload)
    except safetensors.SafetensorError as error:
        raise CorruptExport(f"{TENSORS} is damaged: {error}") from error
    card["sha256"] = digests
    return traverse_util.unflatten_dict(tensors, sep="."), card


def _canonical(card: Mapping[str, Any]) -> str:
    """One spelling per content, so that its hash is the content's."""

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
            return value.tolist()
        raise TypeError(f"{type(value).__name__} {value!r}")

    return json.dumps(card, sort_keys=True, allow_nan=False, default=plain)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _FILE_MODE)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
