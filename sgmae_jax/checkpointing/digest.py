"""`digest.json`: what a finished step directory holds, file by file, array by array.

It lies at the top of the step directory and lists every other file there with
size and hash, and every array with type, shape and fingerprint. It carries a
hash of itself, and only the very bytes that were written are accepted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from sgmae_jax.checkpointing.errors import Damaged, RestoreRefused
from sgmae_jax.checkpointing.folders import is_link, is_local

DIGEST_FILE = "digest.json"
SCHEMA = 1
_CHUNK = 1 << 20
# blake2b releases the interpreter lock, and files are many and independent.
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class ArrayEntry:
    """One array: numpy name of the type, shape, sixteen hexadecimal digits."""

    dtype: str
    shape: tuple[int, ...]
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Digest:
    """Content of a `digest.json`: step number, (size, hash) by file, arrays."""

    step: int
    files: Mapping[str, tuple[int, str]]
    arrays: Mapping[str, ArrayEntry]


def write_digest(
    folder: epath.Path, step: int, arrays: Mapping[str, ArrayEntry]
) -> None:
    """Hashes every file of a folder and writes the digest beside them.

    Args:
        folder: finished, not yet renamed step directory.
        step: step number, at least 0.
        arrays: the saved arrays by name.
    """
    files = _hash_files(folder, sorted(_regular_files(folder)))
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "step": step,
        "files": {name: {"size": s, "blake2b": h} for name, (s, h) in files.items()},
        "arrays": {name: dataclasses.asdict(entry) for name, entry in arrays.items()},
    }
    body["digest"] = _self_hash(body)
    (folder / DIGEST_FILE).write_bytes(_canonical(body))


def read_digest(folder: epath.Path, step: int) -> Digest:
    """Reads the digest of a step directory and checks it in itself.

    Args:
        folder: step directory.
        step: the number its name says.

    Returns:
        The digest; the files have not been looked at.

    Raises:
        Damaged: if it is absent, altered, or that of another step.
        RestoreRefused: if a later version of this package has written it.
    """
    path = folder / DIGEST_FILE
    if is_link(path):
        raise Damaged(f"file {DIGEST_FILE}: is a symbolic link")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"file {DIGEST_FILE}: missing") from None
    except OSError as error:
        raise _unreadable(path, DIGEST_FILE, error) from error
    try:
        body = json.loads(raw)
        # Equality of the bytes leaves no room for blanks, key order or repeated
        # keys that would read the same.
        sound = raw == _canonical(body) and body.pop("digest") == _self_hash(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise Damaged(f"file {DIGEST_FILE}: does not match its own hash")
    if body["schema"] != SCHEMA:
        raise RestoreRefused(
            f"checkpoint {step}: digest schema {body['schema']}, this version reads"
            f" {SCHEMA}"
        )
    if body["step"] != step:
        raise Damaged(f"file {DIGEST_FILE}: belongs to step {body['step']}")
    return Digest(
        step=step,
        files={name: (f["size"], f["blake2b"]) for name, f in body["files"].items()},
        arrays={
            name: ArrayEntry(a["dtype"], tuple(a["shape"]), a["fingerprint"])
            for name, a in body["arrays"].items()
        },
    )


def check_files(folder: epath.Path, digest: Digest) -> None:
    """Checks that a folder holds exactly the files of its digest, unaltered.

    Args:
        folder: step directory.
        digest: its own digest.

    Raises:
        Damaged: naming the first file that is missing, superfluous, no regular
            file, or of another size or hash.
        RestoreRefused: if a file may not be read.
    """
    for name in digest.files:
        if name.startswith("/") or ".." in re.split(r"[/\\]", name):
            raise Damaged(f"file {name}: leads out of the checkpoint")
    present = set(_regular_files(folder)) - {DIGEST_FILE}
    for name in sorted(digest.files.keys() - present):
        raise Damaged(f"file {name}: missing")
    for name in sorted(present - digest.files.keys()):
        raise Damaged(f"file {name}: not in {DIGEST_FILE}")
    for name, (size, _) in digest.files.items():
        actual = (folder / name).stat().length
        if actual != size:
            raise Damaged(f"file {name}: {actual} bytes instead of {size}")
    hashes = _hash_files(folder, list(digest.files))
    for name, expected in digest.files.items():
        if hashes[name] != expected:
            raise Damaged(f"file {name}: hash differs")


def _regular_files(folder: epath.Path, prefix: str = "") -> Iterator[str]:
    try:
        children = sorted(folder.iterdir(), key=lambda child: child.name)
    except OSError as error:
        raise _unreadable(folder, prefix or ".", error) from error
    for child in children:
        name = prefix + child.name
        if is_local(child):
            # Links are looked at, never followed: they could lead anywhere.
            mode = os.lstat(child).st_mode
            if stat.S_ISLNK(mode):
                raise Damaged(f"file {name}: is a symbolic link")
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise Damaged(f"file {name}: is no regular file")
        if child.is_dir():
            yield from _regular_files(child, f"{name}/")
        else:
            yield name


def _hash_files(folder: epath.Path, names: list[str]) -> dict[str, tuple[int, str]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        results = pool.map(lambda name: _hash_file(folder, name), names)
        return dict(zip(names, results, strict=True))


def _hash_file(folder: epath.Path, name: str) -> tuple[int, str]:
    state, size = hashlib.blake2b(digest_size=32), 0
    try:
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                state.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise _unreadable(folder / name, name, error) from error
    return size, state.hexdigest()


def _unreadable(path: epath.Path, name: str, error: OSError) -> Exception:
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError):
        # A file that this user may not read is not damaged.
        return RestoreRefused(f"{path}: {reason}")
    return Damaged(f"file {name}: {reason}")


def _self_hash(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(_canonical(body), digest_size=32).hexdigest()


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True).encode("ascii") + b"\n"
