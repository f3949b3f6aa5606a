"""What is said of weights that cannot be taken."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 4


class WeightsError(Exception):
    """Weights that are damaged, hostile or of another network; one line, no value."""

    exit_code = 2


def some(names: Iterable[str]) -> str:
    """The first few names in words, and how many more there are."""
    every = list(names)
    rest = len(every) - _NAMED
    return ", ".join(every[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
