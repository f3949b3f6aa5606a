"""What is said of weights that cannot be taken."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 4
_LONGEST = 1000


class WeightsError(Exception):
    """Weights that are damaged, hostile or of another network.

    Names out of a file may stand in the message: it is made one printable line.
    """

    exit_code = 2

    def __init__(self, message: str):
        line = "".join(c if c.isprintable() else "?" for c in message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …")


def some(names: Iterable[str]) -> str:
    """The first few names in words, and how many more there are."""
    every = list(names)
    rest = len(every) - _NAMED
    return ", ".join(every[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
