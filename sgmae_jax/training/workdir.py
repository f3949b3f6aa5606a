"""The run directory: made, locked against a second run, and described."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import socket
from typing import Any, TextIO

import ml_collections

from sgmae_jax import rules
from sgmae_jax.config import ConfigError, fields_of, flatten


def open_workdir(folder: pathlib.Path) -> TextIO:
    """Makes the directory and takes its lock, which ends with this process.

    Returns:
        The open lock file; keep it until the run is over.

    Raises:
        ConfigError: it cannot be written, or another run is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o770)
        lock = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--workdir {folder}: cannot be written ({error.strerror})"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        raise ConfigError(f"--workdir {folder}: in use by {holder}") from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock


def public_config(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The resolved config as flat JSON, without directories of this machine.

    Paths keep their last part only: a run directory may be handed on.
    """
    values = json.loads(json.dumps(flatten(config)))
    # How the processes of a job met is not what the run is.
    values = {k: v for k, v in values.items() if not k.startswith("distributed.")}
    for name, field in fields_of(config.method.name).items():
        if field.rule is rules.path:
            values[name] = pathlib.PurePath(values[name]).name
    return values


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new, never a half."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
