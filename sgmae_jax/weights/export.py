"""Trained weights as safetensors with a JSON card beside them."""

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

from sgmae_jax.weights.errors import WeightsError
from sgmae_jax.weights.tensors import DECODER, WEIGHTS

TENSORS = "encoder.safetensors"
CARD = "card.json"
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
_REQUIRED = ("method", "config", "data_fingerprint", "step", "scores")
_OURS = ("format", "parameters", "tensors", "sha256")
# Format 1 had no decoder, and its entry `tensors` was not divided by file.
_FORMAT = 2
_MAY_REPLACE = {TENSORS, DECODER, WEIGHTS, CONFIG, PREPROCESSOR}
# Unpublished weights on a shared machine are for owner and group.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


class CorruptExport(WeightsError):
    """The exported files are damaged or do not belong together."""


def export_encoder(
    params: Mapping[str, Any],
    card: Mapping[str, Any],
    directory: str | os.PathLike,
    *,
    decoder: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the encoder, the decoder if there is one, and a card.

    Tensor names are the path in the tree joined by dots, for example
    `blocks.attn.qkv.kernel`.

    Args:
        params: nested dict of arrays.
        card: see `write_folder`.
        directory: made if need be; an earlier export in it is replaced.
        decoder: likewise.

    Returns:
        The directory.

    Raises:
        ValueError: see `write_folder`; or a name in the tree holds a dot.
    """
    files = {TENSORS: _dotted(params)}
    if decoder is not None:
        files[DECODER] = _dotted(decoder)
    return write_folder(files, {}, card, directory)


def write_folder(
    files: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, Any],
    card: Mapping[str, Any],
    directory: str | os.PathLike,
) -> Path:
    """Writes files of tensors, JSON files and a card; readers never see half a file.

    The card gains `format`, `parameters` (their number), `tensors` (shape and dtype by
    file and name) and `sha256` (of each file, and of the card without this entry).

    Args:
        files: file name -> tensor name -> array.
        notes: file name -> what JSON can hold.
        card: what a reader must know: `method`, `config`, `data_fingerprint`, `step`,
            `scores`; anything else that JSON can hold.
        directory: made if need be; an earlier export in it is replaced.

    Returns:
        The directory.

    Raises:
        ValueError: the card lacks an entry, names one of ours or does not fit JSON, or
            a dtype is not NumPy's own.
    """
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        raise ValueError(f"the card lacks {', '.join(missing)}")
    if clash := [key for key in _OURS if key in card]:
        raise ValueError(f"the card's {', '.join(clash)} are written by the export")
    arrays = {
        file: {name: _writable(name, leaf) for name, leaf in tensors.items()}
        for file, tensors in files.items()
    }
    if not all(arrays.values()):
        raise ValueError("there are no parameters to export")
    # Readers in PyTorch's world ask for this word.
    payloads = {
        file: safetensors.numpy.save(tensors, metadata={"format": "pt"})
        for file, tensors in arrays.items()
    }
    payloads |= {file: _readable(note) for file, note in notes.items()}
    whole = {
        **card,
        "format": _FORMAT,
        "parameters": sum(
            t.size for tensors in arrays.values() for t in tensors.values()
        ),
        "tensors": {
            file: {
                name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}
                for name, tensor in tensors.items()
            }
            for file, tensors in arrays.items()
        },
    }
    try:
        text = _canonical(whole)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card does not fit JSON: {error}") from error
    # What JSON makes of it (tuples become lists) is what a reader will hash.
    whole = json.loads(text)
    whole["sha256"] = {name: _sha256(payload) for name, payload in payloads.items()}
    whole["sha256"][CARD] = _sha256(text.encode())

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=_DIRECTORY_MODE)
    former = _files_of_earlier_export(directory)
    # Several renames cannot be one: a crash between them leaves new tensors beside an
    # old card, which the digests tell.
    for name, payload in payloads.items():
        _write(directory / name, payload)
    _write(directory / CARD, _readable(whole))
    for name in former - payloads.keys():
        (directory / name).unlink(missing_ok=True)
    return directory


def load_encoder(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads an exported encoder back, bit for bit, and proves that it is undamaged.

    Args:
        directory: where `export_encoder` wrote.

    Returns:
        The nested dict of NumPy arrays, and the card.

    Raises:
        FileNotFoundError: one of the two files is not there.
        CorruptExport: a file is damaged, or they do not belong together.
    """
    card = load_card(directory)
    return _load(Path(directory), TENSORS, card), card


def load_decoder(directory: str | os.PathLike) -> dict[str, Any] | None:
    """Reads an exported decoder back, likewise; None where there is none.

    Args:
        directory: where `export_encoder` wrote.

    Raises:
        FileNotFoundError: a file of the export is not there.
        CorruptExport: a file is damaged, or they do not belong together.
    """
    card = load_card(directory)
    return _load(Path(directory), DECODER, card) if DECODER in card["sha256"] else None


def load_card(directory: str | os.PathLike) -> dict[str, Any]:
    """The card of an export in any format, proved to be undamaged.

    Args:
        directory: where it was written.

    Raises:
        FileNotFoundError: it is not there.
        CorruptExport: it is damaged, or of an unknown format.
    """
    try:
        card = json.loads((Path(directory) / CARD).read_bytes())
        digests = card.pop("sha256")
        want = dict(digests)[CARD]
        form = card["format"]
        have = _sha256(_canonical(card).encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptExport(f"{CARD} is damaged: {error!r}") from error
    if have != want:
        raise CorruptExport(f"{CARD}: sha256 is {have}, the card says {want}")
    if form not in range(1, _FORMAT + 1):
        raise CorruptExport(
            f"{CARD} has format {form}, this program reads 1 to {_FORMAT}"
        )
    return {**card, "sha256": digests}


def check_file(card: Mapping[str, Any], name: str, digest: str) -> None:
    """Whether a file is the one that a card speaks of.

    Args:
        card: as from `load_card`.
        name: of the file.
        digest: its SHA-256.

    Raises:
        CorruptExport: it is another, or the card does not know it.
    """
    want = card["sha256"].get(name, "nothing of it")
    if digest != want:
        raise CorruptExport(f"{name}: sha256 is {digest}, the card says {want}")


def _load(directory: Path, name: str, card: Mapping[str, Any]) -> dict[str, Any]:
    payload = (directory / name).read_bytes()
    check_file(card, name, _sha256(payload))
    try:
        tensors = safetensors.numpy.load(payload)
    except safetensors.SafetensorError as error:
        raise CorruptExport(f"{name} is damaged: {error}") from error
    return traverse_util.unflatten_dict(tensors, sep=".")


def _dotted(params: Mapping[str, Any]) -> dict[str, Any]:
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(dict(params)).items():
        if any("." in part for part in path):
            raise ValueError(f"a name in the tree holds a dot: {path}")
        tensors[".".join(path)] = leaf
    return tensors


def _writable(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} is {array.dtype}, which plain NumPy cannot read back: "
            "export float32"
        )
    # safetensors writes the buffer as it lies: it must be in C order.
    return np.ascontiguousarray(array).reshape(array.shape)


def _files_of_earlier_export(directory: Path) -> set[str]:
    try:
        return _MAY_REPLACE & set(load_card(directory)["sha256"])
    except (OSError, CorruptExport):
        return set()


def _readable(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


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
