"""What can go wrong with data, and who is to blame."""

from __future__ import annotations


class DataError(ValueError):
    """The user asked for data that are not there; the message is one line."""

    exit_code = 2  # what the program ends with


class Stalled(DataError):
    """A batch did not come in time: a read hangs, or the disk is far too slow."""


class BadImage(Exception):
    """One image cannot be used; a loader counts it and takes the next good one.

    Args:
        name: where the image is, without machine-specific folders.
        reason: why it cannot be used.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class TooManyBad(RuntimeError):
    """The share of bad images passed the limit: the data set itself is at fault."""

    exit_code = 2
