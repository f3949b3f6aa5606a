"""Checkpoints by Orbax that are verified bit by bit. See docs/checkpoints.md."""

from sgmae_jax.checkpointing.checkpointer import Checkpointer
from sgmae_jax.checkpointing.errors import (
    CheckpointError,
    NoUsableCheckpoint,
    RestoreRefused,
    SaveFailed,
)
from sgmae_jax.checkpointing.reading import (
    BEST,
    folder_of,
    read_meta,
    restore_params,
    restore_series,
    saved_steps,
)

__all__ = [
    "BEST",
    "CheckpointError",
    "Checkpointer",
    "NoUsableCheckpoint",
    "RestoreRefused",
    "SaveFailed",
    "folder_of",
    "read_meta",
    "restore_params",
    "restore_series",
    "saved_steps",
]
