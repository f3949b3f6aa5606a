"""What can go wrong with a checkpoint, by what the program has to do about it."""

from __future__ import annotations


class CheckpointError(Exception):
    """Base of all checkpoint errors; each is one line for the console.

    `exit_code` of a subclass is what the program ends with when nobody handles it.
    """


class Damaged(CheckpointError):
    """One step directory is incomplete or not as it was written."""


class RestoreRefused(CheckpointError):
    """The checkpoint is sound but does not fit this run: the user must decide."""

    exit_code = 2


class NoUsableCheckpoint(CheckpointError):
    """There are step directories, but none of them passes the checks."""

    exit_code = 3


class SaveFailed(CheckpointError):
    """Several saves in a row have failed."""

    exit_code = 5

    exit_code = 5
