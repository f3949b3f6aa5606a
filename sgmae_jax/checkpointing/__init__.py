"""Checkpoints by Orbax that are verified bit by bit. See docs/checkpoints.md."""

from sgmae_jax.checkpointing.checkpointer import Checkpointer
from sgmae_jax.checkpointing.errors import (
    CheckpointError,
    NoUsableCheckpoint,
    RestoreRefused,
    SaveFailed,
)
from sgmae_jax.checkpointing.reading import (
    read_meta,
    restore_params,
    restore_series,
    saved_steps,
)

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "NoUsableCheckpoint",
    "RestoreRefused",
    "SaveFailed",
    "read_meta",
    "restore_params",
    "restore_series",
    "saved_steps",
]
